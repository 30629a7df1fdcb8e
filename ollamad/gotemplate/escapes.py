"""What ``html``, ``js`` and ``urlquery`` do to a text (prompting 2.4). Pure."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

from ollamad.gotemplate.quoting import encode_text, is_printable

_HTML = str.maketrans(
    {"<": "&lt;", ">": "&gt;", "&": "&amp;", "'": "&#39;", '"': "&#34;", "\0": "\ufffd"}
)
_JS = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "<": "\\u003C",
    ">": "\\u003E",
    "&": "\\u0026",
    "=": "\\u003D",
}


def html(text: str) -> str:
    return text.translate(_HTML)


def js(text: str) -> str:
    return "".join(map(_js_character, text))


def _js_character(character: str) -> str:
    if character in _JS:
        return _JS[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no part of a character
        return "\ufffd"
    return character if code == 0x7F or is_printable(character) else f"\\u{code:04X}"


def urlquery(text: str) -> str:
    return quote_from_bytes(encode_text(text), safe=" ").replace(" ", "+")
