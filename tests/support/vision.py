"""A tiny eye for SmolLM2: a projector file (CLIP, LLaVA's kind) whose vectors fit its embeddings.

It sees nothing that means anything, but different pictures give different vectors, and equal ones
equal vectors: enough to show that an image reached the model. Pictures are made here too.
"""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

from ollamad.gguf.writer import Tensor, write_gguf

#: Width of SmolLM2-135M's token embeddings, which the projector's vectors stand beside.
TEXT_WIDTH = 576
#: One image is cut into squares of ``PATCH`` pixels: each becomes one vector, that is one token.
IMAGE_SIZE, PATCH = 56, 14
TOKENS_PER_IMAGE = (IMAGE_SIZE // PATCH) ** 2

_WIDTH, _INNER, _BLOCKS, _HEADS = 32, 64, 2, 2
_F32 = 0


def tiny_projector(path: Path) -> Path:
    """Write the projector to ``path`` (about 1.5 MB, always the same bytes) and return it."""
    write_gguf(path, _METADATA, _tensors())
    return path


_METADATA = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "general.name": "tiny eye",
    "general.file_type": 0,
    "clip.has_vision_encoder": True,
    "clip.projector_type": "mlp",
    "clip.use_gelu": True,
    "clip.vision.image_size": IMAGE_SIZE,
    "clip.vision.patch_size": PATCH,
    "clip.vision.embedding_length": _WIDTH,
    "clip.vision.feed_forward_length": _INNER,
    "clip.vision.projection_dim": TEXT_WIDTH,
    "clip.vision.block_count": _BLOCKS,
    "clip.vision.attention.head_count": _HEADS,
    "clip.vision.attention.layer_norm_epsilon": 1e-5,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_std": [0.25, 0.25, 0.25],
}


def _tensors() -> list[Tensor]:
    chance = random.Random(4)
    made = [
        _noise(chance, "v.class_embd", (_WIDTH,)),
        _noise(chance, "v.patch_embd.weight", (PATCH, PATCH, 3, _WIDTH), 0.1),
        _noise(chance, "v.position_embd.weight", (_WIDTH, TOKENS_PER_IMAGE + 1)),
        *_norm("v.pre_ln"),
        *_norm("v.post_ln"),
        *_linear(chance, "mm.0", _WIDTH, TEXT_WIDTH),
        _identity("mm.2.weight", TEXT_WIDTH),
        _floats("mm.2.bias", (TEXT_WIDTH,), [0.0] * TEXT_WIDTH),
    ]
    for number in range(_BLOCKS):
        block = f"v.blk.{number}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            made += _linear(chance, f"{block}.{name}", _WIDTH, _WIDTH)
        made += _linear(chance, f"{block}.ffn_up", _WIDTH, _INNER)
        made += _linear(chance, f"{block}.ffn_down", _INNER, _WIDTH)
        made += [*_norm(f"{block}.ln1"), *_norm(f"{block}.ln2")]
    return made


def _floats(name: str, shape: tuple[int, ...], values: list[float]) -> Tensor:
    return Tensor(name, _F32, shape, struct.pack(f"<{len(values)}f", *values))


def _noise(chance: random.Random, name: str, shape: tuple[int, ...], reach: float = 0.2) -> Tensor:
    count = 1
    for size in shape:
        count *= size
    return _floats(name, shape, [chance.uniform(-reach, reach) for _ in range(count)])


def _linear(chance: random.Random, name: str, inputs: int, outputs: int) -> list[Tensor]:
    return [
        _noise(chance, f"{name}.weight", (inputs, outputs)),
        _floats(f"{name}.bias", (outputs,), [0.0] * outputs),
    ]


def _norm(name: str) -> list[Tensor]:
    return [
        _floats(f"{name}.weight", (_WIDTH,), [1.0] * _WIDTH),
        _floats(f"{name}.bias", (_WIDTH,), [0.0] * _WIDTH),
    ]


def _identity(name: str, size: int) -> Tensor:
    row = struct.pack("<f", 1.0) + bytes(4 * size)
    return Tensor(name, _F32, (size, size), (row * size)[: 4 * size * size])


# --- pictures -------------------------------------------------------------------------------------

RED, BLUE = (220, 20, 20), (20, 20, 220)


def png(colour: tuple[int, int, int], size: int = 32) -> bytes:
    """A square of one colour with a dark corner, as PNG."""
    dark = bytes(colour[i] // 4 for i in range(3))
    top = b"\x00" + dark * (size // 2) + bytes(colour) * (size - size // 2)
    bottom = b"\x00" + bytes(colour) * size
    pixels = top * (size // 2) + bottom * (size - size // 2)
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(pixels))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def wav(seconds: float = 0.1) -> bytes:
    """Silence as WAV, 16 kHz."""
    samples = bytes(2 * int(16000 * seconds))
    form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body
