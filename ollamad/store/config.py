"""The config blob: what a model is, as its creator stated it (registry-and-store 2.4). Pure."""

from __future__ import annotations

import msgspec

from ollamad.store.json_text import Fields, decode_first, encode


class DraftConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The auxiliary draft model of a tensor-layer model."""

    model_format: str = ""
    architecture: str = ""
    tensor_prefix: str = ""
    config: str = ""


class ConfigBlob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields without a default are always written. ``model_families`` is a list or ``null``."""

    model_format: str
    model_family: str
    model_families: tuple[str, ...] | None
    model_type: str
    file_type: str
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: DraftConfig | None = None
    architecture: str
    os: str

    @property
    def is_remote(self) -> bool:
        """A stub for a model that another server runs."""
        return self.remote_host != "" and self.remote_model != ""


#: The config of a model that has none.
EMPTY_CONFIG = ConfigBlob(
    model_format="",
    model_family="",
    model_families=None,
    model_type="",
    file_type="",
    architecture="",
    os="",
)


def encode_config(config: ConfigBlob) -> bytes:
    """The config blob as the daemon writes it, with the final newline."""
    return encode(config) + b"\n"


def parse_config(raw: bytes) -> ConfigBlob:
    """Read a config blob, ignoring unknown keys. Raises ManifestError."""
    fields = Fields(decode_first(raw), "model.ConfigV2")
    draft = fields.get("draft")
    return ConfigBlob(
        model_format=fields.text("model_format"),
        model_family=fields.text("model_family"),
        model_families=fields.texts("model_families"),
        model_type=fields.text("model_type"),
        file_type=fields.text("file_type"),
        renderer=fields.text("renderer"),
        parser=fields.text("parser"),
        requires=fields.text("requires"),
        remote_host=fields.text("remote_host"),
        remote_model=fields.text("remote_model"),
        capabilities=fields.texts("capabilities") or (),
        context_length=fields.integer("context_length"),
        embedding_length=fields.integer("embedding_length"),
        base_name=fields.text("base_name"),
        draft=None if draft is None else _draft(Fields(draft, "model.Draft")),
        architecture=fields.text("architecture"),
        os=fields.text("os"),
    )


def _draft(fields: Fields) -> DraftConfig:
    return DraftConfig(
        model_format=fields.text("model_format"),
        architecture=fields.text("architecture"),
        tensor_prefix=fields.text("tensor_prefix"),
        config=fields.text("config"),
    )
