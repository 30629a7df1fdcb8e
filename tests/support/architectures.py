"""Small models of many architectures that llama.cpp loads: keys, tensors, a vocabulary, no sense.

Every weight is zero, and the zeros are holes in the file, so that a model of 50 MB costs nothing.
Tensors and keys are those that upstream's converter writes for the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ollamad.gguf.encoding import Typed, TypedArray, Writable
from ollamad.gguf.names import TENSOR_TYPE_IDS, tensor_nbytes
from ollamad.gguf.values import ValueType
from ollamad.gguf.writer import Made, Tensor, fresh
from support import gemma3

F32, F16 = TENSOR_TYPE_IDS["F32"], TENSOR_TYPE_IDS["F16"]

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Dims:
    """The measures of a model; not every architecture uses all of them."""

    layers: int = 4
    width: int = 512
    heads: int = 8
    kv_heads: int = 4
    head: int = 64
    inner: int = 1536
    vocab: int = 4096
    context: int = 32768
    window: int = 512
    experts: int = 8
    used: int = 2
    expert_inner: int = 512
    state: int = 16
    conv: int = 4
    latent: int = 256
    rotated: int = 64
    query: int = 384
    value: int = 128
    delta_heads: int = 8
    delta_groups: int = 4
    delta_head: int = 64
    matrix: int = F16
    #: The output has weights of its own, or it uses the embeddings'.
    untied: bool = False
    keys: dict[str, Writable] = field(default_factory=dict)


@dataclass(frozen=True)
class _Zeros:
    """So many bytes that nobody has to write."""

    size: int

    def blocks(self) -> Iterator[bytes]:
        yield bytes(self.size)


class _Model:
    """Collects the keys and tensors of one model."""

    def __init__(self, arch: str, dims: Dims) -> None:
        self.dims = dims
        self.keys: dict[str, Writable] = {
            "general.architecture": arch,
            "context_length": dims.context,
            "embedding_length": dims.width,
            "block_count": dims.layers,
            "feed_forward_length": dims.inner,
            "attention.head_count": dims.heads,
            "attention.head_count_kv": dims.kv_heads,
            "attention.layer_norm_rms_epsilon": Typed(ValueType.F32, 1e-6),
        }
        self.tensors: list[Tensor] = []
        self.block = -1
        self._vocabulary()

    def vector(self, name: str, *shape: int) -> None:
        self._add(name, shape, F32)

    def matrix(self, name: str, *shape: int) -> None:
        self._add(name, shape, self.dims.matrix)

    def layers(self) -> Iterator[int]:
        for number in range(self.dims.layers):
            self.block = number
            yield number
        self.block = -1

    def ends(self, *, norm: str = "output_norm.weight", untied: bool | None = None) -> None:
        """Embeddings, last norm, output."""
        dims = self.dims
        self.matrix("token_embd.weight", dims.width, dims.vocab)
        self.vector(norm, dims.width)
        if dims.untied if untied is None else untied:
            self.matrix("output.weight", dims.width, dims.vocab)

    def heads(self, key: int, value: int) -> None:
        self.keys["attention.key_length"] = key
        self.keys["attention.value_length"] = value
        self.keys["rope.dimension_count"] = key

    def attention(self, *, bias: bool = False, norms: bool = False) -> None:
        dims = self.dims
        for name, count in (("q", dims.heads), ("k", dims.kv_heads), ("v", dims.kv_heads)):
            self.matrix(f"attn_{name}.weight", dims.width, count * dims.head)
            if bias:
                self.vector(f"attn_{name}.bias", count * dims.head)
        self.matrix("attn_output.weight", dims.heads * dims.head, dims.width)
        if norms:
            self.vector("attn_q_norm.weight", dims.head)
            self.vector("attn_k_norm.weight", dims.head)

    def norms(self, *names: str) -> None:
        for name in names:
            self.vector(f"{name}.weight", self.dims.width)

    def dense(self) -> None:
        dims = self.dims
        self.matrix("ffn_gate.weight", dims.width, dims.inner)
        self.matrix("ffn_up.weight", dims.width, dims.inner)
        self.matrix("ffn_down.weight", dims.inner, dims.width)

    def experts(self, *, bias: bool = False) -> None:
        dims = self.dims
        self.keys |= {
            "expert_count": dims.experts,
            "expert_used_count": dims.used,
            "expert_feed_forward_length": dims.expert_inner,
        }
        inner, count = dims.expert_inner, dims.experts
        self.vector("ffn_gate_inp.weight", dims.width, count)
        self.matrix("ffn_gate_exps.weight", dims.width, inner, count)
        self.matrix("ffn_up_exps.weight", dims.width, inner, count)
        self.matrix("ffn_down_exps.weight", inner, dims.width, count)
        if bias:
            self.vector("ffn_gate_inp.bias", count)
            self.vector("ffn_gate_exps.bias", inner, count)
            self.vector("ffn_up_exps.bias", inner, count)
            self.vector("ffn_down_exps.bias", dims.width, count)

    def shared_expert(self, inner: int) -> None:
        width = self.dims.width
        self.matrix("ffn_gate_shexp.weight", width, inner)
        self.matrix("ffn_up_shexp.weight", width, inner)
        self.matrix("ffn_down_shexp.weight", inner, width)

    def recurrent_keys(self, inner: int, rank: int, groups: int = 0) -> None:
        self.keys |= {
            "ssm.conv_kernel": self.dims.conv,
            "ssm.inner_size": inner,
            "ssm.state_size": self.dims.state,
            "ssm.time_step_rank": rank,
        }
        if groups:
            self.keys["ssm.group_count"] = groups

    def mamba(self, inner: int, rank: int) -> None:
        dims = self.dims
        self.matrix("ssm_in.weight", dims.width, 2 * inner)
        self.vector("ssm_conv1d.weight", dims.conv, inner)
        self.vector("ssm_conv1d.bias", inner)
        self.matrix("ssm_x.weight", inner, rank + 2 * dims.state)
        self.matrix("ssm_dt.weight", rank, inner)
        self.vector("ssm_dt.bias", inner)
        self.vector("ssm_a", dims.state, inner)
        self.vector("ssm_d", inner)
        self.matrix("ssm_out.weight", inner, dims.width)

    def write(self, path: Path) -> Path:
        output = fresh(self.keys | self.dims.keys, self.tensors)
        with path.open("wb") as file:
            for piece in output.pieces:
                if isinstance(piece, _Zeros):
                    file.seek(piece.size, 1)
                else:
                    assert isinstance(piece, bytes)
                    file.write(piece)
            file.truncate(output.size)
        return path

    def _add(self, name: str, shape: Shape, type_id: int) -> None:
        if self.block >= 0:
            name = f"blk.{self.block}.{name}"
        size = tensor_nbytes(type_id, shape)
        assert size is not None, name
        data: Made = _Zeros(size)
        self.tensors.append(Tensor(name, type_id, shape, data))

    def _vocabulary(self) -> None:
        """Spells every text byte by byte; the rest of the tokens only fill the matrix."""
        missing = self.dims.vocab - gemma3.ROWS
        tokens = [*gemma3.TOKENS, *(b"<filler %d>" % number for number in range(missing))]
        self.keys |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": TypedArray(ValueType.STRING, tokens),
            "tokenizer.ggml.scores": TypedArray(ValueType.F32, [0.0] * len(tokens)),
            "tokenizer.ggml.token_type": TypedArray(
                ValueType.I32, [*gemma3.TYPES, *([1] * missing)]
            ),
            "tokenizer.ggml.bos_token_id": 2,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 3,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False,
        }


def _llama(model: _Model) -> None:
    model.heads(model.dims.head, model.dims.head)
    model.ends()
    for _ in model.layers():
        model.norms("attn_norm", "ffn_norm")
        model.attention()
        model.dense()


def _qwen2(model: _Model) -> None:
    model.ends()
    for _ in model.layers():
        model.norms("attn_norm", "ffn_norm")
        model.attention(bias=True)
        model.dense()


def _qwen3moe(model: _Model) -> None:
    model.heads(model.dims.head, model.dims.head)
    model.ends(untied=True)
    for _ in model.layers():
        model.norms("attn_norm", "ffn_norm")
        model.attention(norms=True)
        model.experts()


def _gemma2(model: _Model) -> None:
    model.heads(model.dims.head, model.dims.head)
    model.keys |= {
        "attention.sliding_window": model.dims.window,
        "attn_logit_softcapping": Typed(ValueType.F32, 50.0),
        "final_logit_softcapping": Typed(ValueType.F32, 30.0),
    }
    model.ends(untied=False)
    for _ in model.layers():
        model.norms("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention()
        model.dense()


def _gemma3(model: _Model) -> None:
    model.heads(model.dims.head, model.dims.head)
    model.keys["attention.sliding_window"] = model.dims.window
    model.ends(untied=False)
    for _ in model.layers():
        model.norms("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention(norms=True)
        model.dense()


def _phi3(model: _Model) -> None:
    dims = model.dims
    model.keys |= {
        "rope.dimension_count": dims.head,
        # The converter writes it; llama.cpp does not heed it.
        "attention.sliding_window": dims.window,
    }
    model.ends(untied=True)
    for _ in model.layers():
        model.norms("attn_norm", "ffn_norm")
        model.matrix("attn_qkv.weight", dims.width, dims.width + 2 * dims.kv_heads * dims.head)
        model.matrix("attn_output.weight", dims.width, dims.width)
        model.matrix("ffn_up.weight", dims.width, 2 * dims.inner)
        model.matrix("ffn_down.weight", dims.inner, dims.width)


def _deepseek2(model: _Model) -> None:
    """Latent attention: one narrow row a token for all heads."""
    dims = model.dims
    latent, rope, query, value = dims.latent, dims.rotated, dims.query, dims.value
    key = value + rope
    model.keys |= {
        "attention.head_count_kv": 1,
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": key,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": latent,
        "attention.q_lora_rank": query,
        "rope.dimension_count": rope,
        "leading_dense_block_count": 1,
        "expert_shared_count": 1,
        "expert_weights_scale": Typed(ValueType.F32, 1.0),
    }
    model.ends(untied=True)
    for number in model.layers():
        model.norms("attn_norm", "ffn_norm")
        model.vector("attn_q_a_norm.weight", query)
        model.vector("attn_kv_a_norm.weight", latent)
        model.matrix("attn_q_a.weight", dims.width, query)
        model.matrix("attn_q_b.weight", query, dims.heads * key)
        model.matrix("attn_kv_a_mqa.weight", dims.width, latent + rope)
        model.matrix("attn_k_b.weight", key - rope, latent, dims.heads)
        model.matrix("attn_v_b.weight", latent, value, dims.heads)
        model.matrix("attn_output.weight", dims.heads * value, dims.width)
        if number == 0:
            model.dense()
        else:
            model.experts()
            model.shared_expert(dims.expert_inner)


def _gpt_oss(model: _Model) -> None:
    model.heads(model.dims.head, model.dims.head)
    model.keys["attention.sliding_window"] = model.dims.window
    model.ends(untied=True)
    for _ in model.layers():
        model.norms("attn_norm", "post_attention_norm")
        model.attention(bias=True)
        model.vector("attn_output.bias", model.dims.width)
        model.vector("attn_sinks.weight", model.dims.heads)
        model.experts(bias=True)


def _mamba(model: _Model) -> None:
    inner, rank = 2 * model.dims.width, model.dims.width // 16
    model.recurrent_keys(inner, rank)
    model.keys |= {
        "attention.head_count": 0,
        "feed_forward_length": 0,
    }
    del model.keys["attention.head_count_kv"]
    model.ends()
    for _ in model.layers():
        model.norms("attn_norm")
        model.mamba(inner, rank)


def _jamba(model: _Model) -> None:
    """Every other layer has attention, the others a state."""
    dims = model.dims
    inner, rank = 2 * dims.width, dims.width // 16
    model.recurrent_keys(inner, rank)
    heads = [dims.kv_heads * (number % 2) for number in range(dims.layers)]
    model.keys |= {
        "attention.head_count_kv": TypedArray(ValueType.I32, heads),
        "expert_count": dims.experts,
        "expert_used_count": dims.used,
    }
    model.ends(untied=True)
    for number in model.layers():
        model.norms("attn_norm", "ffn_norm")
        if heads[number]:
            model.attention()
        else:
            model.mamba(inner, rank)
            model.vector("ssm_dt_norm.weight", rank)
            model.vector("ssm_b_norm.weight", dims.state)
            model.vector("ssm_c_norm.weight", dims.state)
        model.dense()


def _falcon_h1(model: _Model) -> None:
    """Every layer has both."""
    dims = model.dims
    inner, count, groups = 2 * dims.width, 16, 1
    both = inner + 2 * groups * dims.state
    model.heads(dims.head, dims.head)
    model.recurrent_keys(inner, count, groups)
    model.ends()
    for _ in model.layers():
        model.norms("attn_norm")
        model.vector("ffn_norm", dims.width)
        model.attention()
        model.dense()
        model.matrix("ssm_in.weight", dims.width, inner + both + count)
        model.vector("ssm_conv1d.weight", dims.conv, both)
        model.vector("ssm_conv1d.bias", both)
        model.vector("ssm_dt.bias", count)
        model.vector("ssm_a", 1, count)
        model.vector("ssm_d", 1, count)
        model.matrix("ssm_out.weight", inner, dims.width)


def _qwen3next(model: _Model) -> None:
    """Every fourth layer has attention, the others a gated delta net; all have experts."""
    dims = model.dims
    head, groups, count = dims.delta_head, dims.delta_groups, dims.delta_heads
    keys, values = head * groups, head * count
    model.heads(dims.head, dims.head)
    model.keys |= {
        "ssm.conv_kernel": dims.conv,
        "ssm.inner_size": values,
        "ssm.state_size": head,
        "ssm.time_step_rank": count,
        "ssm.group_count": groups,
        "full_attention_interval": 4,
        "expert_shared_feed_forward_length": dims.expert_inner,
    }
    model.ends(untied=True)
    for number in model.layers():
        model.norms("attn_norm", "post_attention_norm")
        if number % 4 == 3:
            model.matrix("attn_q.weight", dims.width, 2 * dims.heads * dims.head)
            model.matrix("attn_k.weight", dims.width, dims.kv_heads * dims.head)
            model.matrix("attn_v.weight", dims.width, dims.kv_heads * dims.head)
            model.matrix("attn_output.weight", dims.heads * dims.head, dims.width)
            model.vector("attn_q_norm.weight", dims.head)
            model.vector("attn_k_norm.weight", dims.head)
        else:
            model.matrix("attn_qkv.weight", dims.width, 2 * keys + values)
            model.matrix("attn_gate.weight", dims.width, values)
            model.vector("ssm_conv1d.weight", dims.conv, 2 * keys + values)
            model.vector("ssm_dt.bias", count)
            model.vector("ssm_a", count)
            model.matrix("ssm_ba.weight", dims.width, 2 * count)
            model.vector("ssm_norm.weight", head)
            model.matrix("ssm_out.weight", values, dims.width)
        model.experts()
        model.vector("ffn_gate_inp_shexp.weight", dims.width)
        model.shared_expert(dims.expert_inner)


def _lfm2(model: _Model) -> None:
    """Short convolutions, and attention in every other layer."""
    dims = model.dims
    heads = [dims.kv_heads * (number % 2) for number in range(dims.layers)]
    model.keys |= {
        "attention.head_count_kv": TypedArray(ValueType.I32, heads),
        "shortconv.l_cache": 3,
    }
    model.ends(norm="token_embd_norm.weight", untied=False)
    for number in model.layers():
        model.norms("attn_norm", "ffn_norm")
        if heads[number]:
            model.attention(norms=True)
        else:
            model.vector("shortconv.conv.weight", 3, dims.width)
            model.matrix("shortconv.in_proj.weight", dims.width, 3 * dims.width)
            model.matrix("shortconv.out_proj.weight", dims.width, dims.width)
        model.dense()


def _bert(model: _Model) -> None:
    dims = model.dims
    del model.keys["attention.head_count_kv"]
    model.keys |= {
        "attention.layer_norm_epsilon": Typed(ValueType.F32, 1e-12),
        "attention.causal": False,
        "pooling_type": 1,
        "context_length": 512,
        "tokenizer.ggml.token_type_count": 2,
    }
    model.matrix("token_embd.weight", dims.width, dims.vocab)
    model.matrix("token_types.weight", dims.width, 2)
    model.matrix("position_embd.weight", dims.width, 512)
    for end in ("weight", "bias"):
        model.vector(f"token_embd_norm.{end}", dims.width)
    for _ in model.layers():
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            model.matrix(f"{name}.weight", dims.width, dims.width)
            model.vector(f"{name}.bias", dims.width)
        model.matrix("ffn_up.weight", dims.width, dims.inner)
        model.vector("ffn_up.bias", dims.inner)
        model.matrix("ffn_down.weight", dims.inner, dims.width)
        model.vector("ffn_down.bias", dims.width)
        for name in ("attn_output_norm", "layer_output_norm"):
            for end in ("weight", "bias"):
                model.vector(f"{name}.{end}", dims.width)


_MAKERS: dict[str, Callable[[_Model], None]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "deepseek2": _deepseek2,
    "gpt-oss": _gpt_oss,
    "mamba": _mamba,
    "jamba": _jamba,
    "falcon-h1": _falcon_h1,
    "qwen3next": _qwen3next,
    "lfm2": _lfm2,
    "bert": _bert,
}

ARCHITECTURES = tuple(_MAKERS)


def write_model(path: Path, arch: str, dims: Dims | None = None) -> Path:
    """Write a model of ``arch`` to ``path`` and return it."""
    model = _Model(arch, dims or Dims())
    _MAKERS[arch](model)
    return model.write(path)
