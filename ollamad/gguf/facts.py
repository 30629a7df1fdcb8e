"""What the daemon needs to know about a model file, read once (``modelfile-and-create.md`` 7.1).

Also the facts that a launch depends on (``runners-and-scheduling.md`` 2.2) and those that memory
depends on (4.7).
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from ollamad.gguf import names
from ollamad.gguf.activations import activations_of
from ollamad.gguf.caches import MAX_LAYERS, caches_of, per_layer
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.reader import MAX_TENSORS, open_gguf
from ollamad.gguf.weights import weights_of

#: Published files of these architectures carry their projector among the model's tensors.
_INLINE_PROJECTOR_ARCHS = frozenset(
    {
        "gemma3",
        "gemma4",
        "qwen35",
        "qwen35moe",
        "qwen25vl",
        "qwen3vl",
        "qwen3vlmoe",
        "mistral3",
        "deepseekocr",
        "glmocr",
        "llama4",
        "nemotron_h_omni",
    }
)

#: False texts must not fill the cache: a chat template has some kilobytes, others a few letters.
_LONGEST_CACHED_TEXTS = 1 << 20


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One model file. Sizes in bytes, contexts in tokens; 0, "" and () mean that it does not say.

    ``arch`` is ``unknown`` when the file has none. ``file_type`` is the name, inferred from the
    tensors when the key is absent. ``head_counts`` and ``kv_head_counts`` have one number a layer
    (() when the file does not say how many layers there are), the second 0 for a layer of which
    llama.cpp keeps no keys and values. ``windowed``, ``states``, ``latent`` and ``index_length``:
    see ``caches.Caches``. Windowed layers may have heads of other lengths (``window_key_length``).

    ``layer_bytes``: tensor bytes of each block; ``other_bytes``: of all tensors outside of blocks
    but the projector's; ``input_bytes``, ``embedding_bytes``, ``has_output`` and
    ``largest_bytes``: see ``weights.Weights``. ``activation`` and ``attention_activation``: see
    ``activations.Activations``.
    """

    arch: str = names.UNKNOWN
    kind: str = ""
    file_type: str = names.UNKNOWN
    file_type_id: int | None = None
    parameter_count: int = 0
    tensor_count: int = 0

    context_length: int = 0
    embedding_length: int = 0
    block_count: int = 0
    head_counts: tuple[int, ...] = ()
    kv_head_counts: tuple[int, ...] = ()
    key_length: int = 0
    value_length: int = 0
    window_key_length: int = 0
    window_value_length: int = 0
    sliding_window: int = 0
    windowed: tuple[bool, ...] = ()
    states: tuple[int, ...] = ()
    latent: bool = False
    index_length: int = 0
    activation: int = 0
    attention_activation: int = 0
    expert_count: int = 0
    nextn_predict_layers: int = 0

    has_pooling: bool = False
    pooling_type: int | None = None
    normalize_embeddings: bool | None = None
    vision: bool = False
    audio: bool = False

    chat_template: str = ""
    tokenizer_model: str = ""
    tokenizer_pre: str = ""
    vocab_size: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None

    #: Of projector files; the flags are true when any key with that ending is.
    projector_type: str = ""
    vision_projector_type: str = ""
    has_vision_encoder: bool = False
    has_audio_encoder: bool = False

    tensor_prefixes: frozenset[str] = frozenset()
    layer_bytes: tuple[int, ...] = ()
    other_bytes: int = 0
    input_bytes: int = 0
    embedding_bytes: int = 0
    has_output: bool = False
    largest_bytes: int = 0
    inline_projector_bytes: int = 0
    tensor_bytes: int = 0

    split_no: int | None = None
    split_count: int = 0
    split_tensor_count: int | None = None

    version: int = 3
    big_endian: bool = False
    alignment: int = 32
    data_offset: int = 0
    size: int = 0

    @property
    def is_embedding(self) -> bool:
        """Whether it computes embeddings and does not complete text."""
        return self.has_pooling

    @property
    def train_context(self) -> int:
        """The context it was trained with, 0 if the file does not say."""
        return self.context_length

    @property
    def offloadable_layers(self) -> int:
        """Blocks and the output layer."""
        return self.block_count + 1

    @property
    def has_inline_projector(self) -> bool:
        """Whether its own vision tensors are the projector when there is no separate one."""
        return "v." in self.tensor_prefixes and self.arch in _INLINE_PROJECTOR_ARCHS

    @property
    def has_builtin_draft(self) -> bool:
        """Whether it predicts several tokens by itself (MTP)."""
        if self.nextn_predict_layers > 0:
            return True
        return self.arch in {"qwen35", "qwen35moe"} and "mtp." in self.tensor_prefixes

    @property
    def has_raw_legacy_embeddings(self) -> bool:
        """Whether ``/api/embeddings`` gives this model's vectors as they are, not normalised."""
        if not self.has_pooling:
            return False
        if self.arch == "bert":
            if self.tokenizer_model not in {"", "bert"}:
                return True
            return self.normalize_embeddings is False
        return self.arch in {"nomic-bert", "nomic-bert-moe"} and not self.normalize_embeddings


def read_facts(path: Path) -> Facts:
    """The facts of the file at ``path``. Raises FileNotFoundError and GGUFError."""
    with open_gguf(path) as file:
        return facts_of(file)


#: A file as long as nobody changes it: path, size, time of change, number.
_Identity = tuple[str, int, int, int]


class FactsCache:
    """Facts by path, read again when the file changed. Safe for threads.

    Keeps the ``most`` last used. ``tags`` asks for every model each time. ``read`` reads the facts
    of the file, or of the files that make one, that ``get`` is asked for.
    """

    def __init__(self, most: int = 1000, *, read: Callable[..., Facts] = read_facts) -> None:
        self._most = most
        self._read = read
        self._lock = threading.Lock()
        self._facts: OrderedDict[tuple[_Identity, ...], Facts] = OrderedDict()

    def get(self, *paths: Path) -> Facts:
        """Raises FileNotFoundError and GGUFError, which are not remembered."""
        key = tuple(_identity(path) for path in paths)
        with self._lock:
            facts = self._facts.get(key)
            if facts is not None:
                self._facts.move_to_end(key)
                return facts
        facts = self._read(*paths)
        if _text_length(facts) > _LONGEST_CACHED_TEXTS:
            return facts
        with self._lock:
            self._facts[key] = facts
            while len(self._facts) > self._most:
                self._facts.popitem(last=False)
        return facts


def _identity(path: Path) -> _Identity:
    status = os.stat(path)  # noqa: PTH116 (a third of the time of Path.stat's)
    return (str(path), status.st_size, status.st_mtime_ns, status.st_ino)


def _text_length(facts: Facts) -> int:
    values = (getattr(facts, name) for name in Facts.__struct_fields__)
    return sum(len(value) for value in values if isinstance(value, str))


_cache = FactsCache()


def cached_facts(path: Path) -> Facts:
    """Like ``read_facts``, at the cost of one ``stat`` when the file is known."""
    return _cache.get(path)


def facts_of(file: GGUFFile) -> Facts:
    """The facts of an opened file. Raises GGUFError if it gets unreadable meanwhile."""
    block_count = file.get_int("block_count", 0)
    embedding_length = file.get_int("embedding_length", 0)
    heads = per_layer(file.get_ints("attention.head_count"), block_count)
    caches = caches_of(file, block_count, heads)
    most_heads = max(heads, default=0)
    head_length = embedding_length // most_heads if most_heads else 0
    key_length = file.get_int("attention.key_length", head_length)
    value_length = file.get_int("attention.value_length", head_length)
    tokens = file.get_array("tokenizer.ggml.tokens")
    number = file.get_int("general.file_type")
    weights = weights_of(file, min(block_count, MAX_LAYERS))
    activations = activations_of(file, weights.samples)
    return Facts(
        arch=file.arch,
        kind=file.get_str("general.type", ""),
        file_type=inferred_file_type(matrix_types(file))
        if number is None
        else names.file_type_name(number),
        file_type_id=number,
        parameter_count=file.parameter_count,
        tensor_count=len(file.tensors),
        context_length=file.get_int("context_length", 0),
        embedding_length=embedding_length,
        block_count=block_count,
        head_counts=heads,
        kv_head_counts=caches.heads,
        key_length=key_length,
        value_length=value_length,
        window_key_length=file.get_int("attention.key_length_swa", key_length),
        window_value_length=file.get_int("attention.value_length_swa", value_length),
        sliding_window=caches.window,
        windowed=caches.windowed,
        states=caches.states,
        latent=caches.latent,
        index_length=caches.index,
        activation=activations.most,
        attention_activation=activations.attention,
        expert_count=file.get_int("expert_count", 0),
        nextn_predict_layers=file.get_int("nextn_predict_layers", 0),
        has_pooling=file.has("pooling_type"),
        pooling_type=file.get_int("pooling_type"),
        normalize_embeddings=file.get_bool("normalize_embeddings"),
        vision=file.has("vision.block_count"),
        audio=file.has("audio.block_count"),
        chat_template=file.get_str("tokenizer.chat_template", ""),
        tokenizer_model=file.get_str("tokenizer.ggml.model", ""),
        tokenizer_pre=file.get_str("tokenizer.ggml.pre", ""),
        vocab_size=len(tokens) if tokens is not None else file.get_int("vocab_size", 0),
        bos_token_id=file.get_int("tokenizer.ggml.bos_token_id"),
        eos_token_id=file.get_int("tokenizer.ggml.eos_token_id"),
        add_bos_token=file.get_bool("tokenizer.ggml.add_bos_token"),
        add_eos_token=file.get_bool("tokenizer.ggml.add_eos_token"),
        projector_type=_text(file, "clip.projector_type"),
        vision_projector_type=file.get_str("vision.projector_type", ""),
        has_vision_encoder=_has_true_key(file, ".has_vision_encoder"),
        has_audio_encoder=_has_true_key(file, ".has_audio_encoder"),
        split_no=split_number(file, "split.no"),
        split_count=split_number(file, "split.count") or 0,
        split_tensor_count=split_number(file, "split.tensors.count", most=MAX_TENSORS),
        version=file.version,
        big_endian=file.big_endian,
        alignment=file.alignment,
        data_offset=file.data_offset,
        size=file.size,
        tensor_prefixes=weights.prefixes,
        layer_bytes=weights.layer_bytes,
        other_bytes=weights.other_bytes,
        input_bytes=weights.input_bytes,
        embedding_bytes=weights.embedding_bytes,
        has_output=weights.has_output,
        largest_bytes=weights.largest_bytes,
        inline_projector_bytes=weights.projector_bytes,
        tensor_bytes=weights.total_bytes,
    )


def split_number(file: GGUFFile, key: str, *, most: int = 65535) -> int | None:
    """``split.no`` and the like: 0 … ``most`` of any integer type, as written or below A (9.1)."""
    for name in (key, file.full_key(key)):
        value = file.metadata.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
    return None


# --- parts of facts_of ----------------------------------------------------------------------------


def _text(file: GGUFFile, key: str) -> str:
    value = file.metadata.get(key)
    return value if isinstance(value, str) else ""


def _has_true_key(file: GGUFFile, ending: str) -> bool:
    return any(key.endswith(ending) and file.metadata[key] is True for key in file.metadata)


def matrix_types(file: GGUFFile) -> Counter[str]:
    """How many tensors of two and more dimensions are of which type."""
    return Counter(tensor.type_name for tensor in file.tensors if len(tensor.shape) >= 2)


def inferred_file_type(kinds: Counter[str]) -> str:
    """The type of a file without ``general.file_type`` whose matrices have these types (4.6): F32,
    F16 or BF16, else unknown."""
    if not kinds or not {"F32", "F16", "BF16"}.issuperset(kinds):
        return names.UNKNOWN
    if set(kinds) == {"F32"}:
        return "F32"
    return max(("F16", "BF16"), key=lambda kind: kinds[kind])
