"""Characters of a Modelfile: decoding, what is dropped, blanks and quotes (1.1, 1.2, 1.4, 2.1).

Pure. White space means exactly space, tab, CR and LF: ``str.strip()`` would also take U+00A0, which
is text here.
"""

from __future__ import annotations

import codecs
import re

from ollamad.modelfile.errors import ModelfileError

#: Bytes of UTF-8 that a decoded Modelfile may have.
MAX_SIZE = 64 * 1024 * 1024

BLANKS = " \t"
SPACE = " \t\r\n"

_TOO_LARGE = "Modelfile is larger than 64 MiB"

# UTF-16 of ASCII text is twice as long as its UTF-8.
_MAX_ENCODED = 2 * MAX_SIZE + 4

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Control characters but tab, LF and CR; surrogates; the byte order mark.
_NEVER_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


def decode(source: bytes | str) -> str:
    """The text of a Modelfile without its byte order mark; undecodable bytes become U+FFFD.

    Raises ModelfileError above ``MAX_SIZE``.
    """
    if isinstance(source, str):
        text = source.removeprefix("\ufeff")
    else:
        if len(source) > _MAX_ENCODED:
            raise ModelfileError(_TOO_LARGE)
        for mark, encoding in _MARKS:
            if source.startswith(mark):
                text = source[len(mark) :].decode(encoding, "replace")
                break
        else:
            text = source.decode("utf-8", "replace")
    # Four bytes are the most that a character takes: only long texts need the exact count.
    if 4 * len(text) > MAX_SIZE and len(text.encode("utf-8", "surrogatepass")) > MAX_SIZE:
        raise ModelfileError(_TOO_LARGE)
    return text


def keep_text(text: str) -> str:
    """``text`` as prose keeps it: joined emoji, U+00A0 and unassigned characters stay."""
    return _NEVER_TEXT.sub("", text)


def keep_printable(text: str) -> str:
    """``text`` as names, paths and numbers keep it: printable characters and white space.

    A U+00A0 pasted after a model name goes, which in prose would be wrong.
    """
    if text.isprintable():
        return text
    return "".join(char for char in text if char.isprintable() or char in SPACE)


def strip(text: str) -> str:
    """``text`` without white space around it."""
    return text.strip(SPACE)


def unquote(text: str) -> str | None:
    """The value that the stripped ``text`` denotes; none while its closing quotes are missing."""
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text


def quote(text: str) -> str:
    """``text`` as a Modelfile value that reads back as ``text``, bare where that is possible.

    The language has no escapes, so a text with a line that ends in three quotes cannot be written
    (2.3); it comes out as the reference writes it.
    """
    if not ("\n" in text or "\r" in text or text.startswith('"') or text != text.strip(BLANKS)):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'
