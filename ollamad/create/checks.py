"""What is wrong with a create request at first sight (http-api 14.2). Pure."""

from __future__ import annotations

from ollamad.errors import BadRequest
from ollamad.store.names import Name
from ollamad.wire import CreateRequest


def check_request(request: CreateRequest) -> Name:
    """The target's name, as typed. Raises BadRequest, always before any event.

    Digests are only checked to be there: what they look like is an error of the import (4.3).
    """
    for files in (request.files, request.draft_files):
        for name in files or ():
            if not is_clean_relative_path(name):
                raise BadRequest("file path must be relative")
        _check_digests(files)
    if request.draft_quantize and not request.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    _check_digests(request.adapters)
    target = Name.parse(request.model or request.name)
    if not target.is_valid:
        raise BadRequest("invalid model name")
    return target


def is_clean_relative_path(path: str) -> bool:
    """Whether ``path`` stays below where it is put: no root, no ``.``, ``..`` or empty part.

    The single ``.`` passes. Text that is not valid UTF-8 does not.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return path == "." or all(part not in ("", ".", "..") for part in path.split("/"))


def _check_digests(files: dict[str, str] | None) -> None:
    if files and not all(files.values()):
        raise BadRequest("invalid digest format")
