"""Gemma 3 and its relatives as the public library has them (3.1)."""

from __future__ import annotations

from ollamad.gguf.derive.plan import Kind, Plan, ProjectorPlan
from ollamad.gguf.derive.projector import (
    HALF,
    general_keys,
    projector_tensors,
    required_float,
    required_int,
)
from ollamad.gguf.derive.text import text_plan
from ollamad.gguf.encoding import Writable
from ollamad.gguf.file import GGUFFile

_ARCH = "gemma3"
_EPSILON = "gemma3.attention.layer_norm_rms_epsilon"
_GLOBAL, _LOCAL = "gemma3.rope.global.freq_base", "gemma3.rope.local.freq_base"
#: Keys that only published files have; what is made of them must not look like one.
_MARKS = (
    "gemma3.mm.tokens_per_image",
    _GLOBAL,
    _LOCAL,
    "tokenizer.ggml.add_padding_token",
    "tokenizer.ggml.add_unknown_token",
)
#: From this context on the weights expect positions that are scaled.
_LONG_CONTEXT = 131072

_EYE_INTS = ("block_count", "embedding_length", "feed_forward_length", "image_size", "patch_size")

_EYE_NAMES = (
    ("v.patch_embedding", "v.patch_embd"),
    ("v.position_embedding", "v.position_embd"),
    ("v.post_layernorm", "v.post_ln"),
    (".layer_norm1", ".ln1"),
    (".layer_norm2", ".ln2"),
    (".attn_output", ".attn_out"),
    (".mlp.fc1", ".ffn_up"),
    (".mlp.fc2", ".ffn_down"),
    ("mm.mm_input_projection", "mm.input_projection"),
    ("mm.mm_soft_emb_norm", "mm.soft_emb_norm"),
)


def _matches(file: GGUFFile) -> bool:
    names = {tensor.name for tensor in file.tensors}
    if "dense.0.weight" in names:  # an embedding model
        return False
    return (
        any(mark in file.metadata for mark in _MARKS)
        or _EPSILON not in file.metadata
        or any(name.startswith(("v.", "mm.")) for name in names)
    )


def _plan(file: GGUFFile) -> Plan:
    defaults: dict[str, Writable] = {
        "gemma3.rope.freq_base": 1000000.0,
        "gemma3.rope.freq_base_swa": 10000.0,
        _EPSILON: 1e-6,
    }
    if file.get_int("context_length", 0) >= _LONG_CONTEXT:
        defaults |= {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    text = text_plan(
        file,
        copies={"gemma3.rope.freq_base": _GLOBAL, "gemma3.rope.freq_base_swa": _LOCAL},
        defaults=defaults,
        drop=_MARKS,
    )
    has_eye = any(tensor.name.startswith("v.") for tensor in file.tensors)
    return Plan(_ARCH, text, _eye(file) if has_eye else None)


def _eye(file: GGUFFile) -> ProjectorPlan:
    keys = general_keys(file) | {
        "clip.projector_type": "gemma3",
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        "clip.vision.attention.head_count": required_int(file, "vision.attention.head_count"),
        "clip.vision.attention.layer_norm_epsilon": required_float(
            file, "vision.attention.layer_norm_epsilon"
        ),
        "clip.vision.projection_dim": required_int(file, "embedding_length"),
        "clip.vision.image_mean": HALF,
        "clip.vision.image_std": HALF,
    }
    for name in _EYE_INTS:
        keys[f"clip.vision.{name}"] = required_int(file, f"vision.{name}")
    # Metal and others cut pictures into patches with F32 weights only.
    tensors = projector_tensors(
        file, ("v.", "mm."), _EYE_NAMES, f32=("v.patch_embd.weight", "v.position_embd.weight")
    )
    return ProjectorPlan(keys=keys, tensors=tensors)


KIND = Kind(_ARCH, frozenset({_ARCH}), _matches, _plan)
