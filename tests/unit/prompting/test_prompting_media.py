"""Pictures and sounds: their kinds, what is refused, WebP (runners-and-scheduling.md 3.6)."""

import io
import struct
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.vision import BLUE, RED, png, wav

from ollamad.errors import BadRequest
from ollamad.prompting import media
from ollamad.prompting.media import is_webp, media_type, readable, readable_messages
from ollamad.wire import Message


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: Any) -> bytes:
    """A red one; glassy, if ``mode`` can say so."""
    colour = (255, 0, 0, 128) if mode == "RGBA" else "red"
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind, **options)
    return out.getvalue()


FRAME = b"\xff\xfb\x90\x64" + bytes(100)


def id3(size: int, content: bytes = b"", flags: int = 0) -> bytes:
    shifted = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0" + bytes([flags]) + shifted + content.ljust(size, b"t")


READABLE = {
    "png": (png(RED), "image/png"),
    "png grey": (picture("PNG", "L"), "image/png"),
    "png and more": (png(RED) + b"trailing" * 1000, "image/png"),
    "jpeg": (picture("JPEG"), "image/jpeg"),
    "jpeg progressive": (picture("JPEG", progressive=True), "image/jpeg"),
    "jpeg with exif": (picture("JPEG", exif=b"Exif\0\0" + bytes(9000)), "image/jpeg"),
    "jpeg with fill bytes": (
        picture("JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
        "image/jpeg",
    ),
    # A table, whose first bytes read as a size would be far too large.
    "jpeg with a table first": (
        b"\xff\xd8\xff\xc4\0\x0a" + b"\xff" * 8 + picture("JPEG")[2:],
        "image/jpeg",
    ),
    "gif": (picture("GIF"), "image/gif"),
    "bmp": (picture("BMP"), "image/bmp"),
    "bmp from the top": (
        picture("BMP")[:22] + struct.pack("<i", -4) + picture("BMP")[26:],
        "image/bmp",
    ),
    "bmp of OS/2": (b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 6, 4, 1, 24), "image/bmp"),
    "wav": (wav(), "wav"),
    "wav with an odd chunk": (wav()[:12] + b"LIST\1\0\0\0x\0" + wav()[12:], "wav"),
    "mp3": (FRAME, "mp3"),
    "mp3 with tag": (id3(300) + FRAME, "mp3"),
    "mp3 with tags, footer and padding": (
        id3(20, flags=0x10) + bytes(10) + id3(5) + bytes(9000) + FRAME,
        "mp3",
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_runners_read_goes_as_it_came(name: str) -> None:
    data, kind = READABLE[name]
    assert media_type(data) == kind
    assert readable([data]) == [data]
    assert not is_webp(data)


def test_unknown_bytes_count_as_jpeg() -> None:
    assert media_type(b"\1\2") == media_type(b"") == "image/jpeg"


def png_head(width: int, height: int) -> bytes:
    whole = png(RED)
    return whole[:16] + struct.pack(">II", width, height) + whole[24:]


def webp_head(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size


UNREADABLE = {
    "nothing": (b"", "it is empty"),
    "text": (b"hello", "it is no JPEG, PNG, GIF, BMP or WebP picture, and no WAV or MP3 sound"),
    "a playlist": (b"#EXTM3U\nfile:///etc/passwd", "it is no JPEG"),
    "a video": (b"\0\0\0\x18ftypmp42", "it is no JPEG"),
    "a list of files": (b"ffconcat version 1.0\nfile /etc/passwd", "it is no JPEG"),
    "png signature": (png(RED)[:8], "it is cut short"),
    "png without end": (png(RED)[:-12], "it is cut short"),
    "png without size": (png(RED)[:12] + b"IDAT" + png(RED)[16:], "does not begin with its size"),
    "png flat": (png_head(0, 5), "it has no pixels"),
    "png bomb": (png_head(2**31 - 1, 2**31 - 1), "2147483647x2147483647 pixels are too many"),
    "png over the limit": (png_head(2**14 + 1, 2**13), "16385x8192 pixels are too many"),
    "jpeg signature": (b"\xff\xd8\xff", "it is cut short"),
    "jpeg cut": (picture("JPEG")[:40], "it is cut short"),
    "jpeg damaged": (b"\xff\xd8\xff\xe0\0\2nonsense", "damaged before its size"),
    "jpeg of tables": (b"\xff\xd8" + b"\xff\xe0\0\2" * 9000, "does not tell its size"),
    "jpeg ended": (b"\xff\xd8\xff\xe0\0\2\xff\xd9", "does not tell its size"),
    "gif cut": (b"GIF89a\1", "it is cut short"),
    "gif flat": (b"GIF89a" + bytes(20), "it has no pixels"),
    "bmp cut": (b"BM" + bytes(9), "it is cut short"),
    "bmp bomb from the top": (
        picture("BMP")[:18] + struct.pack("<ii", 2**20, -(2**20)) + picture("BMP")[26:],
        "1048576x1048576 pixels are too many",
    ),
    "webp cut": (picture("WEBP")[:20], "it is cut short"),
    "webp of nothing": (b"RIFF\4\0\0\0WEBP", "it is cut short"),
    "webp bomb": (webp_head(2**24, 2**24), "16777216x16777216 pixels are too many"),
    "webp over its limit": (webp_head(2**13 + 1, 2**13), "8193x8192 pixels are too many"),
    "wav head": (b"RIFF....WAVE", "the WAV holds no sound"),
    "wav of 9000 chunks": (
        wav()[:12] + b"LIST\0\0\0\0" * 9000 + wav()[12:],
        "the WAV holds no sound",
    ),
    "mp3 of 9000 tags": (id3(0) * 9000 + FRAME, "the MP3 holds no sound"),
    "a tag and a playlist": (id3(20) + b"#EXTM3U\n/etc/passwd", "the MP3 holds no sound"),
    "a tag alone": (id3(20), "the MP3 holds no sound"),
    "half a tag": (b"ID3\4", "the MP3 holds no sound"),
    "padding alone": (id3(20) + bytes(9000), "the MP3 holds no sound"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_nothing_reads_is_refused(name: str) -> None:
    data, reason = UNREADABLE[name]
    with pytest.raises(BadRequest) as caught:
        readable([png(RED), data])
    assert caught.value.status == 400
    assert str(caught.value).startswith("cannot read image 2 of 2: ")
    assert reason in str(caught.value)


def test_the_limits_themselves_are_allowed() -> None:
    assert readable([png_head(2**14, 2**13)])
    with pytest.raises(BadRequest, match="decode WebP image: "):
        readable([webp_head(2**13, 2**13)])  # past the limits, and then it has no content


@pytest.mark.parametrize(
    ("options", "mode"),
    [({"lossless": True}, "RGB"), ({"quality": 95}, "RGB"), ({"lossless": True}, "RGBA")],
    ids=["lossless", "lossy", "with alpha"],
)
def test_webp_becomes_png(options: dict[str, Any], mode: str) -> None:
    data = picture("WEBP", mode, (40, 30), **options)
    assert is_webp(data)
    assert media_type(data) == "image/webp"
    made, beside = readable([data, png(BLUE)])
    assert beside == png(BLUE)
    with Image.open(io.BytesIO(made)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (40, 30), mode)
        pixel = image.convert("RGB").getpixel((20, 15))
        assert isinstance(pixel, tuple)
        assert all(abs(a - b) < 12 for a, b in zip(pixel, (255, 0, 0), strict=True))


def test_of_a_moving_webp_the_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(io.BytesIO(readable([out.getvalue()])[0])) as image:
        assert image.convert("RGB").getpixel((4, 4)) == (255, 0, 0)


def test_a_damaged_webp_is_refused() -> None:
    data = bytearray(picture("WEBP", size=(64, 64), lossless=True))
    data[21:] = bytes(len(data) - 21)
    data[12:16] = b"VP8L"
    with pytest.raises(BadRequest, match=r"^decode WebP image: ") as caught:
        readable([bytes(data)])
    assert caught.value.status == 400


def test_nothing_is_converted_before_all_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "_png_of_webp", lambda data: pytest.fail("too early"))
    with pytest.raises(BadRequest):
        readable([picture("WEBP"), b"junk"])


def test_only_webp_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert readable([data for data, _ in READABLE.values()])


def test_messages() -> None:
    webp = picture("WEBP")
    text = Message(role="system", content="s")
    first = Message(role="user", content="a", images=[png(RED)], thinking="t", tool_call_id="i")
    second = Message(role="tool", content="b", images=[webp, png(BLUE)], tool_name="n")
    out = readable_messages([text, first, second])
    assert out[0] is text
    assert out[1] == first
    assert out[2].images == [readable([webp])[0], png(BLUE)]
    assert (out[2].role, out[2].content, out[2].tool_name) == ("tool", "b", "n")
    assert second.images == [webp, png(BLUE)]
    with pytest.raises(BadRequest, match=r"^cannot read image 3 of 4: it is empty"):
        readable_messages([first, Message(role="user", content="", images=[webp, b"", webp])])


HEADS = [data[:60] for data, _ in READABLE.values()] + [
    data[:60] for data, _ in UNREADABLE.values()
]


@settings(max_examples=500)
@given(st.sampled_from(HEADS), st.integers(0, 60), st.binary(max_size=40), st.booleans())
def test_whatever_comes_is_taken_or_refused(
    head: bytes, keep: int, more: bytes, overwrite: bool
) -> None:
    data = head[:keep] + more + (head[keep + len(more) :] if overwrite else b"")
    try:
        (out,) = readable([data])
    except BadRequest:
        return
    assert out == data or is_webp(data)
    assert media_type(out) != "image/webp"
