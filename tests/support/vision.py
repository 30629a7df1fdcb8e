"""A tiny eye and a tiny ear for SmolLM2: projector files whose vectors fit its embeddings.

They perceive nothing that means anything, but different pictures or sounds give different vectors,
and equal ones equal vectors: enough to show that one reached the model. Pictures and sounds are
made here too.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from pathlib import Path

from ollamad.gguf.encoding import Writable
from ollamad.gguf.writer import Tensor, write_gguf

#: Width of SmolLM2-135M's token embeddings, which the projector's vectors stand beside.
TEXT_WIDTH = 576
#: One image is cut into squares of ``PATCH`` pixels: each becomes one vector, that is one token.
IMAGE_SIZE, PATCH = 56, 14
TOKENS_PER_IMAGE = (IMAGE_SIZE // PATCH) ** 2

#: A sound fills up 30 s: 1500 vectors, of which each ``STACK`` become one.
STACK = 50
TOKENS_PER_SOUND = 1500 // STACK

_WIDTH, _INNER, _BLOCKS, _HEADS = 32, 64, 2, 2
_MELS = 80
_F32, _F16 = 0, 1


def tiny_projector(path: Path) -> Path:
    """Write an eye (CLIP with LLaVA's projector) of 1.5 MB to ``path`` and return it."""
    chance = random.Random(4)
    tensors = [
        _noise(chance, "v.class_embd", (_WIDTH,)),
        _noise(chance, "v.patch_embd.weight", (PATCH, PATCH, 3, _WIDTH), 0.1),
        _noise(chance, "v.position_embd.weight", (_WIDTH, TOKENS_PER_IMAGE + 1)),
        *_norm("v.pre_ln"),
        *_blocks(chance, "v"),
        *_linear(chance, "mm.0", _WIDTH, TEXT_WIDTH),
        _identity("mm.2.weight", TEXT_WIDTH),
        _constant("mm.2.bias", TEXT_WIDTH, 0),
    ]
    metadata = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": IMAGE_SIZE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.25, 0.25, 0.25],
    }
    write_gguf(path, _metadata("vision") | metadata, tensors)
    return path


def tiny_ear(path: Path) -> Path:
    """Write an ear (Whisper's encoder with Ultravox's projector) of 1.3 MB to ``path``."""
    chance = random.Random(5)
    tensors = [
        _noise(chance, "a.conv1d.1.weight", (3, _MELS, _WIDTH), 0.1, type_id=_F16),
        _constant("a.conv1d.1.bias", _WIDTH, 0, shape=(1, _WIDTH)),
        _noise(chance, "a.conv1d.2.weight", (3, _WIDTH, _WIDTH), 0.1, type_id=_F16),
        _constant("a.conv1d.2.bias", _WIDTH, 0, shape=(1, _WIDTH)),
        _noise(chance, "a.position_embd.weight", (_WIDTH, 1500)),
        *_norm("a.post_ln"),
        *_blocks(chance, "a"),
        _constant("mm.a.norm_pre.weight", _WIDTH * STACK, 1),
        _noise(chance, "mm.a.mlp.1.weight", (_WIDTH * STACK, 2 * _INNER)),
        _constant("mm.a.norm_mid.weight", _INNER, 1),
        _noise(chance, "mm.a.mlp.2.weight", (_INNER, TEXT_WIDTH)),
    ]
    metadata = {
        "clip.has_audio_encoder": True,
        "clip.projector_type": "ultravox",
        "clip.audio.num_mel_bins": _MELS,
        "clip.audio.projector.stack_factor": STACK,
    }
    write_gguf(path, _metadata("audio") | metadata, tensors)
    return path


def _metadata(sense: str) -> dict[str, Writable]:
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": f"tiny {sense}",
        "general.file_type": 0,
        f"clip.{sense}.embedding_length": _WIDTH,
        f"clip.{sense}.feed_forward_length": _INNER,
        f"clip.{sense}.projection_dim": TEXT_WIDTH,
        f"clip.{sense}.block_count": _BLOCKS,
        f"clip.{sense}.attention.head_count": _HEADS,
        f"clip.{sense}.attention.layer_norm_epsilon": 1e-5,
    }


def _blocks(chance: random.Random, prefix: str) -> list[Tensor]:
    made: list[Tensor] = []
    for number in range(_BLOCKS):
        block = f"{prefix}.blk.{number}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            made += _linear(chance, f"{block}.{name}", _WIDTH, _WIDTH)
        if prefix == "a":  # Whisper's keys have no bias
            made = [t for t in made if t.name != f"{block}.attn_k.bias"]
        made += _linear(chance, f"{block}.ffn_up", _WIDTH, _INNER)
        made += _linear(chance, f"{block}.ffn_down", _INNER, _WIDTH)
        made += [*_norm(f"{block}.ln1"), *_norm(f"{block}.ln2")]
    return made


def _linear(chance: random.Random, name: str, inputs: int, outputs: int) -> list[Tensor]:
    weight = _noise(chance, f"{name}.weight", (inputs, outputs))
    return [weight, _constant(f"{name}.bias", outputs, 0)]


def _norm(name: str) -> list[Tensor]:
    return [_constant(f"{name}.weight", _WIDTH, 1), _constant(f"{name}.bias", _WIDTH, 0)]


def _noise(
    chance: random.Random,
    name: str,
    shape: tuple[int, ...],
    reach: float = 0.2,
    *,
    type_id: int = _F32,
) -> Tensor:
    count = math.prod(shape)
    values = [chance.uniform(-reach, reach) for _ in range(count)]
    code = "e" if type_id == _F16 else "f"
    return Tensor(name, type_id, shape, struct.pack(f"<{count}{code}", *values))


def _constant(
    name: str, count: int, value: float, *, shape: tuple[int, ...] | None = None
) -> Tensor:
    return Tensor(name, _F32, shape or (count,), struct.pack("<f", value) * count)


def _identity(name: str, size: int) -> Tensor:
    row = struct.pack("<f", 1.0) + bytes(4 * size)
    return Tensor(name, _F32, (size, size), (row * size)[: 4 * size * size])


# --- pictures and sounds --------------------------------------------------------------------------

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


def wav(pitch: float = 440, seconds: float = 0.1) -> bytes:
    """A tone of ``pitch`` Hz as WAV, 16 kHz."""
    count = int(16000 * seconds)
    tone = (int(9000 * math.sin(2 * math.pi * pitch * i / 16000)) for i in range(count))
    samples = struct.pack(f"<{count}h", *tone)
    form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body
