"""Pictures and sounds of a request: what they are, whether a runner can read them. Pure.

A runner gets most of them as they came and reads them itself. What is plainly unreadable, or made
to fill its memory, is refused here before a model is loaded for it; and nothing reaches the runner
that it would hand on to another program, as it does with bytes that it takes for a video.
Source: runners-and-scheduling.md 3.6.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence

from ollamad.errors import BadRequest
from ollamad.wire import Message

#: The largest picture, in pixels: a runner spends 3 bytes on each while it reads a picture.
MAX_PIXELS = 1 << 27
#: The same for a picture that is converted here, where a pixel costs up to 8 bytes.
MAX_CONVERTED_PIXELS = 1 << 26

_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)

#: Parts of a file that are looked at; before what matters real ones have some dozens.
_MAX_PARTS = 4096
_CUT_SHORT = "it is cut short"


class _Unreadable(Exception):
    """Why a picture or sound cannot be used, as the end of a sentence."""


def media_type(data: bytes) -> str:
    """``wav``, ``mp3``, or an image's MIME type; unknown bytes count as ``image/jpeg``."""
    return _known_type(data) or "image/jpeg"


def is_webp(data: bytes) -> bool:
    """Whether ``readable`` has to convert it, which can take a second: call it in a thread."""
    return _known_type(data) == "image/webp"


def readable(items: Sequence[bytes]) -> list[bytes]:
    """The items in a form that every runner reads: WebP as PNG, all others as they are.

    Raises BadRequest, with a text that counts from 1, for what is neither picture nor sound of a
    known kind, is cut short, has no pixels or too many. All are checked before one is converted. A
    picture that is damaged further in is for the runner to refuse.
    """
    for number, data in enumerate(items, 1):
        try:
            _check(data)
        except _Unreadable as reason:
            raise BadRequest(f"cannot read image {number} of {len(items)}: {reason}") from reason
    return [_png_of_webp(data) if is_webp(data) else data for data in items]


def readable_messages(messages: Sequence[Message]) -> list[Message]:
    """The messages with their images made ``readable``; raises as that does."""
    items = [item for message in messages for item in message.images or ()]
    ready = iter(readable(items))
    return [
        Message(
            role=m.role,
            content=m.content,
            thinking=m.thinking,
            images=[next(ready) for _ in m.images],
            tool_calls=m.tool_calls,
            tool_name=m.tool_name,
            tool_call_id=m.tool_call_id,
        )
        if m.images
        else m
        for m in messages
    ]


def _known_type(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for magic, mime in _IMAGES:
        if data.startswith(magic):
            return mime
    if data[:3] == b"ID3" or _is_mpeg_frame(data):
        return "mp3"
    return ""


def _is_mpeg_frame(data: bytes, at: int = 0) -> bool:
    return len(data) > at + 1 and data[at] == 0xFF and data[at + 1] & 0xE0 == 0xE0


def _check(data: bytes) -> None:
    kind = _known_type(data)
    if not data:
        raise _Unreadable("it is empty")
    if not kind:
        raise _Unreadable("it is no JPEG, PNG, GIF, BMP or WebP picture, and no WAV or MP3 sound")
    if kind == "wav":
        _check_wav(data)
    elif kind == "mp3":
        _check_mp3(data)
    else:
        try:
            width, height = _SIZES[kind](data)
        except (struct.error, IndexError) as error:
            raise _Unreadable(_CUT_SHORT) from error
        if not width or not height:
            raise _Unreadable("it has no pixels")
        limit = MAX_CONVERTED_PIXELS if kind == "image/webp" else MAX_PIXELS
        if width * height > limit:
            raise _Unreadable(f"{width}x{height} pixels are too many (at most {limit})")


# --- the size of a picture, as its head tells it --------------------------------------------------


def _png_size(data: bytes) -> tuple[int, int]:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind not in (b"IHDR", b"CgBI"):
        raise _Unreadable("the PNG does not begin with its size")
    if b"IEND" not in data[-1024:] and b"IEND" not in data:
        raise _Unreadable(_CUT_SHORT)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MAX_PARTS):
        if data[at] != 0xFF:
            raise _Unreadable("the JPEG is damaged before its size")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        # Baseline and progressive frames, but not the tables among the same numbers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in (0xD9, 0xDA):
            break
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    raise _Unreadable("the JPEG does not tell its size")


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    (head,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if head == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height: stored from the top


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        packed = data[24:30]
        if len(packed) < 6:
            raise _Unreadable(_CUT_SHORT)
        return (
            int.from_bytes(packed[:3], "little") + 1,
            int.from_bytes(packed[3:], "little") + 1,
        )
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise _Unreadable(_CUT_SHORT)


_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/gif": _gif_size,
    "image/bmp": _bmp_size,
    "image/webp": _webp_size,
}


def _png_of_webp(data: bytes) -> bytes:
    """The first frame. Raises BadRequest."""
    from PIL import Image  # noqa: PLC0415 - few requests need it

    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            image.load()
            # A runner reads every level equally fast, and forgets the file at once.
            image.save(out, "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadRequest(f"decode WebP image: {error}") from error
    return out.getvalue()


# --- sounds ---------------------------------------------------------------------------------------


def _check_wav(data: bytes) -> None:
    found = set()
    for name in _riff_chunks(data):
        found.add(name)
        if found >= {b"fmt ", b"data"}:
            return
    raise _Unreadable("the WAV holds no sound")


def _riff_chunks(data: bytes) -> Iterator[bytes]:
    at = 12
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack_from("<4sI", data, at)
        yield name
        at += 8 + size + size % 2


def _check_mp3(data: bytes) -> None:
    """After its tags there has to be a frame: a tag may precede any kind of file, and the runner
    would look for the right program to open that."""
    at = 0
    for _ in range(_MAX_PARTS):
        if data[at : at + 3] != b"ID3":
            break
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = len(data) > at + 5 and data[at + 5] & 0x10
        at += 10 + size + (10 if has_footer else 0)
    while data[at : at + 1] == b"\0":
        padding = data[at : at + 4096]
        at += len(padding) - len(padding.lstrip(b"\0"))
    if not _is_mpeg_frame(data, at):
        raise _Unreadable("the MP3 holds no sound")
