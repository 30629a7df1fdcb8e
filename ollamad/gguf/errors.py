"""What is wrong with a GGUF file, in the texts that clients see.

Source of the texts: ``modelfile-and-create.md`` 6.5.
"""

from __future__ import annotations

from ollamad.errors import OllamadError


class GGUFError(OllamadError):
    """The file is no GGUF that can be read or used. Status 500 unless the rule says otherwise."""


def end_of_file() -> GGUFError:
    """The file ends exactly where a field begins."""
    return GGUFError("EOF")


def unexpected_end_of_file() -> GGUFError:
    """The file ends inside a field."""
    return GGUFError("unexpected EOF")
