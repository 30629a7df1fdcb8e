"""What part of a model a GGUF is (``modelfile-and-create.md`` 4.4)."""

from __future__ import annotations

from typing import Literal

from ollamad.gguf.file import GGUFFile

MediaKind = Literal["model", "adapter", "projector"]

_ADAPTER_ENDINGS = (".lora_a", ".lora_b")


def media_kind(file: GGUFFile) -> MediaKind:
    """The last part of the media type that the file's layer gets."""
    kind = file.get_str("general.type")
    if kind == "adapter":
        return "adapter"
    if kind in {"projector", "mmproj"}:
        return "projector"
    # Every integer and flag below is read below A, which the last rule wants to be ``clip``.
    if file.get_int("block_count", 0) == 0:
        if file.get_int("vision.block_count", 0) > 0:
            return "projector"
        if file.arch == "clip" and (
            file.get_bool("has_vision_encoder") or file.get_bool("has_audio_encoder")
        ):
            return "projector"
    return "model"


def is_adapter(file: GGUFFile) -> bool:
    """Whether it can be an adapter: it says so, or has nothing but low-rank pairs."""
    if file.get_str("general.type") == "adapter":
        return True
    return bool(file.tensors) and all(
        tensor.name.endswith(_ADAPTER_ENDINGS) for tensor in file.tensors
    )


def needs_projector_type(file: GGUFFile) -> bool:
    """Whether it is an old vision projector to which ``clip.projector_type`` must be added.

    4.6 rule 9; only asked of projector layers.
    """
    return (
        file.arch == "clip"
        and file.get_bool("has_vision_encoder") is True
        and "clip.projector_type" not in file.metadata
        and "clip.vision.projector_type" not in file.metadata
    )
