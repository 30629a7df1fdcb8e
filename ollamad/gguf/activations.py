"""How much a model computes with at a time: numbers of 32 bits that live at once, per token.

llama.cpp allocates the most that any step of a graph needs, and every block uses the same memory
again. The sums below were found by measuring its buffers for many shapes of each kind of block:
they are exact where no hole is left between tensors, and a little more elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ollamad.gguf.file import GGUFFile, TensorInfo

#: Of every token besides: its id, its position, where its keys go.
_SMALL = 10


class Activations(msgspec.Struct, frozen=True):
    """``most``: in whatever step needs most, with flash attention. ``attention``: in attention
    alone, without the scores that it has when it is not flash. 0 when the file does not say.
    """

    most: int = 0
    attention: int = 0


def activations_of(file: GGUFFile, samples: Mapping[str, TensorInfo]) -> Activations:
    """``samples``: see ``weights.Weights``. Raises GGUFError if the file gets unreadable."""
    width = file.get_int("embedding_length", 0)
    if not width or not samples:
        return Activations()
    attention = _attention(file, width)
    most = max(
        attention,
        _dense(file, samples, width),
        _experts(file, samples, width),
        _recurrent(file, samples, width),
    )
    # Some models add something of each token in every block, and keep it until then.
    everywhere = 2 * file.get_int("block_count", 0) * file.get_int(
        "embedding_length_per_layer_input", 0
    ) + 2 * width * file.get_int("n_deepstack_layers", 0)
    return Activations(most + everywhere + _SMALL, attention + everywhere + _SMALL)


def _attention(file: GGUFFile, width: int) -> int:
    heads = max(file.get_ints("attention.head_count"), default=0)
    if not heads:
        return 0
    kv_heads = max(file.get_ints("attention.head_count_kv"), default=heads)
    if (latent := file.get_int("attention.kv_lora_rank", 0)) and file.has(
        "attention.key_length_mla"
    ):
        rotated = file.get_int("rope.dimension_count", 0)
        plain = max(0, file.get_int("attention.key_length_mla", 0) - rotated)
        return heads * (2 * latent + 3 * rotated + plain) + 5 * width
    usual = width // heads
    key = file.get_int("attention.key_length", usual)
    value = file.get_int("attention.value_length", usual)
    return 4 * width + heads * (key + value) + kv_heads * (key + value)


def _dense(file: GGUFFile, samples: Mapping[str, TensorInfo], width: int) -> int:
    down = samples.get("ffn_down.weight")
    if down is None:
        return 0
    inner = max((*file.get_ints("feed_forward_length"), _first(down)))
    # The gate may be the other half of one matrix.
    gated = "ffn_gate.weight" in samples or _second(samples.get("ffn_up.weight")) >= 2 * inner
    return (3 if gated else 1) * inner + 5 * width


def _experts(file: GGUFFile, samples: Mapping[str, TensorInfo], width: int) -> int:
    down = samples.get("ffn_down_exps.weight")
    if down is None:
        return 0
    used = max(file.get_ints("expert_used_count"), default=1)
    inner, out = used * _first(down), used * width
    gated = "ffn_gate_exps.weight" in samples or "ffn_gate_up_exps.weight" in samples
    most = (3 if gated else 2) * inner + 5 * width
    # What the experts answer goes where their inner parts were, if it is not longer.
    if out > 2 * inner:
        most += out
    shared = _first(samples.get("ffn_down_shexp.weight"))
    return max(most, 3 * shared + 6 * width if shared else 0)


def _recurrent(file: GGUFFile, samples: Mapping[str, TensorInfo], width: int) -> int:
    if "shortconv.in_proj.weight" in samples:
        return 8 * width
    if file.get_int("wkv.head_size", 0):
        return 16 * width
    inner = file.get_int("ssm.inner_size", 0)
    state, groups = file.get_int("ssm.state_size", 0), file.get_int("ssm.group_count", 0)
    if "ssm_x.weight" in samples:
        return 13 * inner // 2 + 2 * width
    if "ssm_in.weight" in samples and "ssm_d" in samples:
        both = inner + 2 * groups * state
        beside = width if "attn_q.weight" in samples and "ffn_gate.weight" in samples else 0
        return _second(samples["ssm_in.weight"]) + 2 * both + inner + 5 * width + beside
    if "ssm_conv1d.weight" in samples:  # a delta net: keys and values of heads
        return 4 * (state * groups + inner) + 4 * width
    if file.get_int("kda.head_dim", 0):
        heads = max(file.get_ints("attention.head_count"), default=0)
        return 8 * heads * file.get_int("kda.head_dim", 0) + 4 * width
    return 0


def _first(tensor: TensorInfo | None) -> int:
    return tensor.shape[0] if tensor is not None and tensor.shape else 0


def _second(tensor: TensorInfo | None) -> int:
    return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else 0
