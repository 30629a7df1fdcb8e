"""A tiny Gemma 3, as the public library has such files, and as llama.cpp wants them.

Its weights are chance. Its vocabulary spells every text byte by byte.
"""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

from ollamad.gguf.encoding import Typed, TypedArray, Writable
from ollamad.gguf.values import ValueType
from ollamad.gguf.writer import Tensor, write_gguf

WIDTH, HEADS, INNER, LAYERS = 256, 2, 384, 2
HEAD = WIDTH // HEADS
EYE_WIDTH, EYE_HEADS, EYE_INNER, EYE_LAYERS = 64, 4, 128, 2
IMAGE, PATCH = 112, 14
#: One picture: squares of patches, of which 16 become one token.
TOKENS_PER_IMAGE = (IMAGE // PATCH // 4) ** 2

F32, F16 = 0, 1
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

_SPECIAL = (
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
)
TOKENS = [b"<pad>", b"<eos>", b"<bos>", b"<unk>"]
TYPES = [_CONTROL, _CONTROL, _CONTROL, _UNKNOWN]
for _number in range(256):
    TOKENS.append(b"<0x%02X>" % _number)
    TYPES.append(_BYTE)
for _text in _SPECIAL:
    TOKENS.append(_text.encode())
    TYPES.append(_CONTROL)
#: Vocabularies are not always UTF-8.
TOKENS.append(b"\xe2\x96")
TYPES.append(_NORMAL)
ROWS = len(TOKENS)

_NAMES = (
    ("v.patch_embd.", "v.patch_embedding."),
    ("v.position_embd.", "v.position_embedding."),
    ("v.post_ln.", "v.post_layernorm."),
    (".ln1.", ".layer_norm1."),
    (".ln2.", ".layer_norm2."),
    (".attn_out.", ".attn_output."),
    (".ffn_up.", ".mlp.fc1."),
    (".ffn_down.", ".mlp.fc2."),
    ("mm.input_projection.", "mm.mm_input_projection."),
    ("mm.soft_emb_norm.", "mm.mm_soft_emb_norm."),
)


def library_keys(*, tokens: int = ROWS + 1, context: int = 131072) -> dict[str, Writable]:
    """Of a published file: nothing about positions, one token more than there are embeddings."""
    extra = [b"<image_soft_token>"] * max(0, tokens - ROWS)
    vocabulary = [*TOKENS, *extra][:tokens]
    types = [*TYPES, *(_NORMAL for _ in extra)][:tokens]
    return {
        "general.architecture": "gemma3",
        "general.name": "tiny",
        "general.file_type": 0,
        **{f"gemma3.{key}": value for key, value in _text_keys(context).items()},
        "gemma3.mm.tokens_per_image": TOKENS_PER_IMAGE,
        "gemma3.vision.block_count": EYE_LAYERS,
        "gemma3.vision.embedding_length": EYE_WIDTH,
        "gemma3.vision.feed_forward_length": EYE_INNER,
        "gemma3.vision.image_size": IMAGE,
        "gemma3.vision.patch_size": PATCH,
        "gemma3.vision.num_channels": 3,
        "gemma3.vision.attention.head_count": EYE_HEADS,
        "gemma3.vision.attention.layer_norm_epsilon": 1e-6,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TypedArray(ValueType.STRING, vocabulary),
        "tokenizer.ggml.scores": TypedArray(ValueType.F32, [-1.0 * n for n in range(tokens)]),
        "tokenizer.ggml.token_type": TypedArray(ValueType.I32, types),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_padding_token": False,
        "tokenizer.ggml.add_unknown_token": False,
    }


def _text_keys(context: int) -> dict[str, Writable]:
    return {
        "context_length": context,
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.sliding_window": 64,
    }


def text_tensors() -> list[Tensor]:
    """Alike in both forms."""
    chance = random.Random(1)
    tensors = [
        _noise(chance, "token_embd.weight", (WIDTH, ROWS)),
        _ones("output_norm.weight", WIDTH),
    ]
    for number in range(LAYERS):
        block = f"blk.{number}"
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            tensors.append(_ones(f"{block}.{name}.weight", WIDTH))
        for name in ("attn_q_norm", "attn_k_norm"):
            tensors.append(_ones(f"{block}.{name}.weight", HEAD))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.append(_noise(chance, f"{block}.{name}.weight", (WIDTH, WIDTH)))
        for name in ("ffn_gate", "ffn_up"):
            tensors.append(_noise(chance, f"{block}.{name}.weight", (WIDTH, INNER)))
        tensors.append(_noise(chance, f"{block}.ffn_down.weight", (INNER, WIDTH)))
    return tensors


def eye_tensors(*, type_id: int = F32) -> list[Tensor]:
    """With llama.cpp's names; ``type_id``: of patch and position embeddings."""
    chance = random.Random(2)
    patches = (IMAGE // PATCH) ** 2
    tensors = [
        _noise(chance, "v.patch_embd.weight", (PATCH, PATCH, 3, EYE_WIDTH), type_id),
        _zeros("v.patch_embd.bias", EYE_WIDTH),
        _noise(chance, "v.position_embd.weight", (EYE_WIDTH, patches), type_id),
        *_norm("v.post_ln"),
        _noise(chance, "mm.input_projection.weight", (WIDTH, EYE_WIDTH)),
        _ones("mm.soft_emb_norm.weight", EYE_WIDTH),
    ]
    for number in range(EYE_LAYERS):
        block = f"v.blk.{number}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors.append(_noise(chance, f"{block}.{name}.weight", (EYE_WIDTH, EYE_WIDTH)))
            tensors.append(_zeros(f"{block}.{name}.bias", EYE_WIDTH))
        tensors.append(_noise(chance, f"{block}.ffn_up.weight", (EYE_WIDTH, EYE_INNER)))
        tensors.append(_zeros(f"{block}.ffn_up.bias", EYE_INNER))
        tensors.append(_noise(chance, f"{block}.ffn_down.weight", (EYE_INNER, EYE_WIDTH)))
        tensors.append(_zeros(f"{block}.ffn_down.bias", EYE_WIDTH))
        tensors += [*_norm(f"{block}.ln1"), *_norm(f"{block}.ln2")]
    return tensors


def library_tensors() -> list[Tensor]:
    """Text and eye together, under the names of published files."""
    return [*text_tensors(), *(published(tensor) for tensor in eye_tensors(type_id=F16))]


def published(tensor: Tensor) -> Tensor:
    name = tensor.name
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs, 1)
    return Tensor(name, tensor.type_id, tensor.shape, tensor.data)


def library_file(path: Path) -> Path:
    """A file of 4 MB as it is published, with an eye."""
    write_gguf(path, library_keys(), library_tensors())
    return path


def loadable_text(path: Path) -> Path:
    """The same text model as llama.cpp's own tools would write it."""
    write_gguf(path, loadable_keys(), text_tensors())
    return path


def loadable_keys() -> dict[str, Writable]:
    keys = library_keys(tokens=ROWS)
    kept = {
        key: value
        for key, value in keys.items()
        if not key.startswith(("gemma3.mm.", "gemma3.vision."))
        and key not in ("tokenizer.ggml.add_padding_token", "tokenizer.ggml.add_unknown_token")
    }
    return kept | {
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.freq_base_swa": 1e4,
        "gemma3.attention.layer_norm_rms_epsilon": Typed(ValueType.F32, 1e-6),
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
    }


def _noise(chance: random.Random, name: str, shape: tuple[int, ...], type_id: int = F32) -> Tensor:
    count = math.prod(shape)
    values = [chance.gauss(0, 0.1) for _ in range(count)]
    return Tensor(name, type_id, shape, struct.pack(f"<{count}{'fe'[type_id]}", *values))


def _norm(name: str) -> list[Tensor]:
    return [_ones(f"{name}.weight", EYE_WIDTH), _zeros(f"{name}.bias", EYE_WIDTH)]


def _ones(name: str, count: int) -> Tensor:
    return Tensor(name, F32, (count,), struct.pack("<f", 1.0) * count)


def _zeros(name: str, count: int) -> Tensor:
    return Tensor(name, F32, (count,), bytes(4 * count))
