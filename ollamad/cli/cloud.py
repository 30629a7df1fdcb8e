"""What a model's name tells the command line about where it runs (registry-and-store 1.5).

Pure. The rules of names are imported when a name may need them: most names speak for themselves,
and ``stop`` and ``rm`` shall start fast.
"""

from __future__ import annotations

from ollamad.errors import BadRequest


def is_cloud(model: str) -> bool:
    """Whether the name's suffix says that the model runs elsewhere (``x:cloud``, ``x:b-cloud``).

    A name with two suffixes is none; the server refuses it.
    """
    if "cloud" not in model.lower():
        return False
    return _stored_text(model) is not None


def pull_form(model: str) -> str:
    """The name under which the stub of the cloud model ``model`` is stored and pulled."""
    return _stored_text(model) or model


def _stored_text(model: str) -> str | None:
    from ollamad.store.names import parse_reference  # noqa: PLC0415

    try:
        reference = parse_reference(model)
    except BadRequest:
        return None
    return reference.stored_text if reference.source == "cloud" else None


def may_be_in_the_cloud(model: str) -> bool:
    """Whether ``model:cloud`` is worth a look when no registry has ``model`` (``cli.md`` 8.2):
    a name on the default registry without a tag.
    """
    from ollamad.store.names import DEFAULT_HOST, Name, parse_reference  # noqa: PLC0415

    if model.rfind(":") > model.rfind("/"):
        return False
    try:
        if parse_reference(model).source != "unspecified":
            return False
    except BadRequest:
        return False
    name = Name.parse(model)
    return name.is_valid and name.host.lower() == DEFAULT_HOST
