"""The facts of a file of weights as the scheduler gets them."""

from __future__ import annotations

from ollamad.gguf.facts import Facts
from ollamad.scheduler.spec import ModelShape


def shape_of(facts: Facts) -> ModelShape:
    """What memory depends on, of the weights alone."""
    return ModelShape(
        arch=facts.arch,
        weight_bytes=facts.size,
        layer_bytes=facts.layer_bytes,
        other_bytes=facts.other_bytes,
        input_bytes=facts.input_bytes,
        tied_bytes=0 if facts.has_output else facts.embedding_bytes,
        largest_bytes=facts.largest_bytes,
        draft_layers=facts.nextn_predict_layers,
        train_context=facts.train_context,
        heads=max(facts.head_counts, default=0),
        width=facts.embedding_length,
        vocab=facts.vocab_size,
        kv_heads=facts.kv_head_counts,
        key_length=facts.key_length,
        value_length=facts.value_length,
        latent=facts.latent,
        index_length=facts.index_length,
        sliding_window=facts.sliding_window,
        windowed=facts.windowed,
        window_key_length=facts.window_key_length,
        window_value_length=facts.window_value_length,
        states=facts.states,
        activation=facts.activation,
        attention_activation=facts.attention_activation,
    )
