"""The content type of a file by its first bytes, as browsers guess it (3.2). Pure.

Only the difference between zip, text and binary decides anything; the other types appear in error
texts and keep, say, a PDF from being taken for weights.
"""

from __future__ import annotations

import re

#: How much of a file is looked at.
SNIFFED_BYTES = 512

ZIP = "application/zip"
TEXT = "text/plain"
BINARY = "application/octet-stream"

_BLANKS = b"\t\n\x0c\r "

_TAG = re.compile(
    rb"<(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P|!--)"
    rb"[ >]",
    re.IGNORECASE,
)

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", TEXT),
    (b"\xff\xfe", TEXT),
    (b"\xef\xbb\xbf", TEXT),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", ZIP),
    (b"Rar!\x1a\x07", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
)

_RIFF = {b"WEBPVP": "image/webp", b"WAVE": "audio/wave", b"AVI ": "video/avi"}

_BINARY_BYTE = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def content_type(head: bytes) -> str:
    """The type of a file that begins with ``head``; an empty file is text."""
    head = head[:SNIFFED_BYTES]
    text = head.lstrip(_BLANKS)
    if _TAG.match(text):
        return "text/html"
    if text.startswith(b"<?xml"):
        return "text/xml"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF":
        for form, name in _RIFF.items():
            if head.startswith(form, 8):
                return name
    return BINARY if _BINARY_BYTE.search(head) else TEXT


def is_text(found: str) -> bool:
    """Whether a chat template or a JSON file may be of this type: one may begin with ``<!--``."""
    return found in (TEXT, "text/html", "text/xml")
