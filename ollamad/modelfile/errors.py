"""What can be wrong with a Modelfile; the texts are those of modelfile-and-create 1.6 and 3."""

from __future__ import annotations

from ollamad.errors import UsageError


class ModelfileError(UsageError):
    """A Modelfile that cannot be read or turned into a request: the CLI prints the text."""
