"""What each block keeps of the tokens it has seen: keys and values, a window of them, a state.

What llama.cpp allocates for an architecture, not what the model's authors had in mind.
"""

from __future__ import annotations

import msgspec

from ollamad.gguf.file import GGUFFile

#: A false ``block_count`` must not make lists of billions.
MAX_LAYERS = 4096

#: They see a whole text at once and keep nothing of it.
_WITHOUT_CACHE = frozenset(
    (
        "bert",
        "clef",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    )
)
#: Every n-th layer sees the whole context, the others a window, where the file does not say so.
_WINDOW_PERIODS = {
    "afmoe": 4,
    "cohere2": 4,
    "cohere2moe": 4,
    "exaone-moe": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "gptoss": 2,
    "laguna": 4,
    "llama4": 4,
    "mellum": 4,
    "muse-glimmer": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": 4,
}
#: Of these, those whose first layer of a period sees everything, not the last one.
_WHOLE_FIRST = frozenset(("cohere2moe", "laguna", "smallthinker"))
#: The window where the file does not say how long it is.
_WINDOWS = {"gemma2": 4096, "llama4": 8192}
#: llama.cpp does not heed what the file says of a window.
_WINDOW_IGNORED = frozenset(("phi3",))
#: All layers with attention have the window.
_ALL_WINDOWED = frozenset(("lfm2",))
#: Attention and a state in the same layer.
_BOTH = frozenset(("falcon-h1",))
#: Layers that are only a feed-forward network have neither.
_THREE_KINDS = frozenset(("nemotron_h", "nemotron_h_moe"))
#: Later layers use the keys and values of earlier ones.
_FIRST_WITH_CACHE = {"gemma3n": 20}
_SHARING = frozenset(("gemma4",))
#: A second, narrow row of keys tells which tokens to attend to.
_INDEXED = frozenset(("deepseek32", "glm-dsa"))


class Caches(msgspec.Struct, frozen=True, kw_only=True):
    """``heads``: of keys and values, per layer, 0 for a layer without a cache. ``windowed``: per
    layer, whether its cache holds only ``window`` tokens; () without a window. ``states``: numbers
    of 32 bits that a layer keeps of each sequence; () when no layer has a state. ``latent``: keys
    and values are one row that is kept once. ``index``: numbers of a second row of keys.
    """

    heads: tuple[int, ...] = ()
    window: int = 0
    windowed: tuple[bool, ...] = ()
    states: tuple[int, ...] = ()
    latent: bool = False
    index: int = 0


def per_layer(numbers: tuple[int, ...], block_count: int) -> tuple[int, ...]:
    """One number a layer; a single one holds for all, missing ones repeat the largest."""
    if not numbers or not 0 < block_count <= MAX_LAYERS:
        return ()
    return (numbers + (max(numbers),) * (block_count - len(numbers)))[:block_count]


def caches_of(file: GGUFFile, block_count: int, heads: tuple[int, ...]) -> Caches:
    """``heads``: of attention, per layer. Raises GGUFError if the file gets unreadable."""
    kv_heads = per_layer(file.get_ints("attention.head_count_kv"), block_count) or heads
    kv_heads = _with_attention(file, kv_heads)
    states = _states(file, block_count, kv_heads, max(heads, default=0))
    kv_heads = _with_cache(file, kv_heads)
    window = file.get_int("attention.sliding_window", _WINDOWS.get(file.arch, 0))
    if file.arch in _WINDOW_IGNORED:
        window = 0
    return Caches(
        heads=kv_heads,
        window=window,
        windowed=_windowed(file, block_count, kv_heads) if window else (),
        states=states,
        latent=file.has("attention.key_length_mla"),
        index=file.get_int("attention.indexer.key_length", 0) if file.arch in _INDEXED else 0,
    )


def _with_attention(file: GGUFFile, kv_heads: tuple[int, ...]) -> tuple[int, ...]:
    """Hybrids in which only some layers have attention: the others need no cache."""
    recurrent = file.get_ints("attention.recurrent_layers")
    if len(recurrent) > 1:
        flags = recurrent + (0,) * (len(kv_heads) - len(recurrent))
        pairs = zip(kv_heads, flags, strict=False)
        return tuple(0 if flag else heads for heads, flag in pairs)
    interval = file.get_int("full_attention_interval", 0)
    if interval <= 1:
        return kv_heads
    return tuple(
        heads if (layer + 1) % interval == 0 else 0 for layer, heads in enumerate(kv_heads)
    )


def _with_cache(file: GGUFFile, kv_heads: tuple[int, ...]) -> tuple[int, ...]:
    """Without those that keep nothing, use another layer's cache, or are for drafts."""
    if file.arch in _WITHOUT_CACHE:
        return (0,) * len(kv_heads)
    first = len(kv_heads) - file.get_int("nextn_predict_layers", 0)
    first = min(first, _FIRST_WITH_CACHE.get(file.arch, first))
    if file.arch in _SHARING:
        first = min(first, len(kv_heads) - file.get_int("attention.shared_kv_layers", 0))
    return tuple(heads if layer < first else 0 for layer, heads in enumerate(kv_heads))


def _states(
    file: GGUFFile, block_count: int, kv_heads: tuple[int, ...], heads: int
) -> tuple[int, ...]:
    length = _state_length(file, heads)
    if not length or not 0 < block_count <= MAX_LAYERS:
        return ()
    kv_heads = kv_heads or (0,) * block_count
    inner = per_layer(file.get_ints("feed_forward_length"), block_count)
    three = file.arch in _THREE_KINDS and len(inner) == block_count
    last = block_count - file.get_int("nextn_predict_layers", 0)
    return tuple(
        length
        if layer < last and (file.arch in _BOTH or (not count and not (three and inner[layer])))
        else 0
        for layer, count in enumerate(kv_heads)
    )


def _state_length(file: GGUFFile, heads: int) -> int:
    """Numbers that a recurrent layer keeps of a sequence: its state and the last inputs."""
    width = file.get_int("embedding_length", 0)
    if head := file.get_int("wkv.head_size", 0):
        return width * (head + file.get_int("token_shift_count", 2))
    if taps := file.get_int("shortconv.l_cache", 0):
        return width * (taps - 1)
    taps = max(0, file.get_int("ssm.conv_kernel", 0) - 1)
    if head := file.get_int("kda.head_dim", 0):
        return heads * head * (head + 3 * (taps or 3))
    state, inner = file.get_int("ssm.state_size", 0), file.get_int("ssm.inner_size", 0)
    groups = file.get_int("ssm.group_count", 0)
    return state * inner + taps * (inner + 2 * groups * state)


def _windowed(file: GGUFFile, block_count: int, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
    """Per layer, whether attention is limited to the window. False when in doubt: it costs more."""
    if not 0 < block_count <= MAX_LAYERS:
        return ()
    if file.arch in _ALL_WINDOWED:
        return tuple(heads > 0 for heads in kv_heads)
    pattern = file.get_ints("attention.sliding_window_pattern")
    if len(pattern) > 1:
        flags = tuple(value != 0 for value in pattern[:block_count])
        return flags + (False,) * (block_count - len(flags))
    period = _WINDOW_PERIODS.get(file.arch, 0)
    if period and pattern and pattern[0]:
        period = pattern[0]
    whole = 0 if file.arch in _WHOLE_FIRST else period - 1
    return tuple(period > 0 and layer % period != whole for layer in range(block_count))
