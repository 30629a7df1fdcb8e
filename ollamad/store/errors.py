"""What can be wrong with a store, and the operating system's errors in the reference's words."""

from __future__ import annotations

import os

from ollamad.errors import OllamadError


class ManifestError(OllamadError):
    """A manifest, config or JSON layer that cannot be read as what it should be (status 500)."""


class StoreError(OllamadError):
    """The model directory itself cannot be used (status 500)."""


def os_error_text(operation: str, error: OSError) -> str:
    """``open /path: no such file or directory``: clients and tools match on this form.

    ``operation`` is the name of the failed call: ``open``, ``stat``, ``mkdir``, ``write`` …
    """
    reason = os.strerror(error.errno).lower() if error.errno is not None else str(error)
    if error.filename is None:
        return f"{operation}: {reason}"
    if error.filename2 is not None:
        # The system does not say which of the two is in the way.
        return f"rename {_text(error.filename)} {_text(error.filename2)}: {reason}"
    return f"{operation} {_text(error.filename)}: {reason}"


def _text(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes) else str(filename)
