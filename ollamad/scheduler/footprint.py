"""How many bytes a model takes, part by part, for a number of slots, a context and a batch.

Contract: ``runners-and-scheduling.md`` 4.7. Pure. The parts are the buffers that llama.cpp
allocates, and the tests hold them against what it reports of them.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate

import msgspec

from ollamad.scheduler.spec import ModelShape

#: llama.cpp lays out a cache in steps of so many tokens.
CONTEXT_STEP = 256
#: The batch of a runner that is not told one.
DEFAULT_BATCH = 512

#: Bytes of one element of the KV cache; blocks of 32 carry a scale, some also a minimum.
_KV_ELEMENT = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
_FLOAT = 4
#: Several devices that work at the same time have so many copies of a graph's inputs.
_COPIES = 4


class Footprint(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Bytes of one launch, by part. Those of a part that the model does not have are 0.

    ``block_weights`` and ``block_caches``: of each block, its weights and what it keeps of the
    tokens (keys, values, states). ``inputs``: what tokens are looked up in, always in main memory.
    ``output``: the weights after the last block; ``tied``: the part of ``inputs`` that is the
    output's as well, and exists twice when that is on a device. ``compute``: the buffer of a graph,
    on each place that computes; ``graph_inputs``: the part of it that tells the graph its task.
    ``largest``: of a tensor in a block: weights in main memory are computed with on a device.
    ``logits``: the answers, in main memory. ``projector``, ``adapters``, ``draft``: what comes with
    the model, the draft with its own caches and buffers.
    """

    block_weights: tuple[int, ...]
    block_caches: tuple[int, ...]
    inputs: int = 0
    output: int = 0
    tied: int = 0
    compute: int = 0
    graph_inputs: int = 0
    largest: int = 0
    logits: int = 0
    projector: int = 0
    adapters: int = 0
    draft: int = 0

    @property
    def layers(self) -> int:
        """How many blocks there are; the output is one more that a device can have."""
        return len(self.block_weights)

    @cached_property
    def weights(self) -> int:
        """Of the model itself, when all of it is in one place."""
        return sum(self.block_weights) + self.inputs + self.output

    @cached_property
    def cache(self) -> int:
        return sum(self.block_caches)

    @cached_property
    def total(self) -> int:
        """Of all parts in main memory."""
        return self.weights + self.cache + self.compute + self.logits + self._beside

    @property
    def _beside(self) -> int:
        return self.projector + self.adapters + self.draft

    @cached_property
    def _on_devices(self) -> tuple[int, ...]:
        """Weights and caches on devices by number of layers there: the output, then the last
        blocks first."""
        blocks = map(sum, zip(self.block_weights, self.block_caches, strict=True))
        return (0, *accumulate(reversed(list(blocks)), initial=self.output + self.tied))

    def device_bytes(self, gpu_layers: int, devices: int = 1) -> int:
        """On ``devices`` together when they have ``gpu_layers``, of which the output is the first.

        A projector goes along only with the whole model.
        """
        if gpu_layers <= 0:
            return 0
        if gpu_layers <= self.layers:
            held = self._on_devices[gpu_layers]
            # Blocks in main memory are computed with here, one tensor at a time.
            return held + devices * (self.compute + self.largest) + self.adapters + self.draft
        copies = (_COPIES - 1) * self.graph_inputs if devices > 1 else 0
        return self._on_devices[-1] + devices * (self.compute + copies) + self._beside

    def host_bytes(self, gpu_layers: int) -> int:
        """In main memory besides."""
        if gpu_layers <= 0:
            return self.total
        held = self.weights + self.cache + self.tied + self.inputs_on_host
        held -= self._on_devices[min(gpu_layers, self.layers + 1)]
        if gpu_layers <= self.layers:
            held += self.compute - self.inputs_on_host + self.projector
        return held + self.logits

    @property
    def inputs_on_host(self) -> int:
        """The buffer that is left in main memory when devices compute everything."""
        return min(self.compute, self.graph_inputs)


def footprint(
    shape: ModelShape,
    *,
    slots: int,
    slot_context: int,
    sequences: int = 0,
    kv_cache_type: str = "",
    num_batch: int = DEFAULT_BATCH,
    flash: bool = True,
    embedding: bool = False,
    draft_tokens: int = 0,
) -> Footprint:
    """What a launch of ``shape`` takes.

    ``slots``: caches of ``slot_context`` tokens each. ``sequences``: requests at a time when they
    share one cache, 0 for one a cache. ``num_batch``: tokens computed at a time, 0 for the default.
    ``flash``: whether attention needs no room for its scores. ``embedding``: every token of a batch
    has an answer. ``draft_tokens``: how many a draft proposes, 0 for no draft. A type of cache that
    we do not know counts as f16. Never raises.
    """
    slots = max(1, slots)
    sequences = max(slots, sequences)
    context = _padded(slot_context)
    batch = num_batch if num_batch > 0 else DEFAULT_BATCH
    batch = min(batch, max(1, slot_context) * slots)
    drafts = draft_tokens if shape.draft_bytes or shape.draft_layers else 0
    blocks, ends = _weights(shape, with_draft=drafts > 0)
    inputs = min(shape.input_bytes, ends)
    # A shared cache holds the windows of all that share it.
    window = shape.sliding_window * (sequences if slots == 1 else 1) + batch
    window = _padded(min(context, window)) if shape.sliding_window else context
    element = _KV_ELEMENT.get(kv_cache_type.lower(), 2.0)
    # All that was proposed is answered at once, and states are kept to go back to.
    answers = batch if embedding else sequences * (1 + drafts)
    compute, masks = _compute(shape, context, window, batch, sequences, answers, flash)
    if compute and shape.latent and not flash:
        compute += shape.value_length * context * slots * 2  # values, turned round
    states = sequences * (1 + drafts)
    caches = _caches(shape, len(blocks), context, window, element, slots, states)
    draft = shape.draft_bytes if drafts > 0 else 0
    if drafts > 0 and shape.draft is not None:
        # Its cache is of the usual type whatever that of the model is.
        draft = footprint(
            shape.draft,
            slots=slots,
            slot_context=slot_context,
            sequences=sequences,
            num_batch=num_batch,
            flash=flash,
        ).total
    elif drafts > 0 and shape.draft_layers > 0:
        draft += shape.draft_layers * max(caches, default=0) + compute
    return Footprint(
        block_weights=blocks,
        block_caches=caches,
        inputs=inputs,
        output=ends - inputs,
        tied=shape.tied_bytes,
        compute=compute,
        graph_inputs=masks + 2 * batch * shape.width * _FLOAT if compute else 0,
        largest=shape.largest_bytes,
        logits=sequences * (shape.vocab + (shape.width if embedding else 0)) * _FLOAT,
        projector=shape.projector_bytes,
        adapters=shape.adapter_bytes,
        draft=draft,
    )


def _weights(shape: ModelShape, *, with_draft: bool) -> tuple[tuple[int, ...], int]:
    """Bytes of each block, and of all that is not in one."""
    if shape.layer_bytes:
        blocks = shape.layer_bytes
        if shape.draft_layers > 0 and not with_draft:
            # What only predicts further tokens is not loaded for anything else.
            unused = min(shape.draft_layers, len(blocks))
            blocks = blocks[: len(blocks) - unused] + (0,) * unused
        return blocks, shape.other_bytes
    # Nothing is known but how many layers there are: they and the output are alike.
    count = len(shape.kv_heads)
    each = shape.weight_bytes // (count + 1)
    return (each,) * count, shape.weight_bytes - each * count


def _caches(
    shape: ModelShape,
    count: int,
    context: int,
    window: int,
    element: float,
    slots: int,
    states: int,
) -> tuple[int, ...]:
    """Bytes that each block keeps; ``states``: how many of a recurrent one."""
    kinds: dict[tuple[int, bool, int], int] = {}
    heads, windowed, lengths = shape.kv_heads, shape.windowed, shape.states
    out = []
    for layer in range(count):
        key = (
            heads[layer] if layer < len(heads) else 0,
            windowed[layer] if layer < len(windowed) else False,
            lengths[layer] if layer < len(lengths) else 0,
        )
        size = kinds.get(key)
        if size is None:
            count_of_heads, narrow, length = key
            row = count_of_heads * shape.row(narrow)
            if count_of_heads:
                row += shape.index_length
            tokens = (window if narrow else context) * slots
            size = kinds[key] = int(tokens * row * element) + length * states * _FLOAT
        out.append(size)
    return tuple(out)


def _compute(
    shape: ModelShape,
    context: int,
    window: int,
    batch: int,
    sequences: int,
    answers: int,
    flash: bool,
) -> tuple[int, int]:
    """Bytes of the graph's buffer, and of the masks in it. ``answers``: rows of logits."""
    if not shape.activation:
        return 0, 0
    tokens = -(-batch // sequences) * sequences
    keeps = any(shape.kv_heads)
    if keeps:
        wide = not all(shape.windowed) if shape.windowed else True
        seen = (context if wide else 0) + (window if any(shape.windowed) else 0)
        most = context if wide else window
    else:
        # Without a cache a batch looks at itself, if it looks at all.
        seen = most = tokens if shape.heads and not any(shape.states) else 0
    masks = tokens * seen * (2 if flash else _FLOAT)
    floats = tokens * shape.activation
    if not flash:
        floats = max(floats, tokens * (shape.attention_activation + shape.heads * most))
    if keeps or any(shape.states):  # others have no vocabulary to answer with
        floats = max(floats, answers * shape.vocab + 5 * min(answers, tokens) * shape.width)
    floats += max(shape.states, default=0) * sequences
    return masks + floats * _FLOAT, masks


def _padded(tokens: int) -> int:
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP
