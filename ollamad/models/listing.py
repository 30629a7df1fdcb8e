"""Stored models in the lists of the API (http-api.md 12.1, modelfile-and-create.md 7.5)."""

from __future__ import annotations

from ollamad.models.catalog import Catalog, KnownModel
from ollamad.timestamps import local_time
from ollamad.wire import ListedModel, ModelDetails


def list_models(catalog: Catalog) -> list[ListedModel]:
    """``models`` of tags. Blocks on the disk."""
    return [listed(model) for model in catalog.list_sync()]


def details(model: KnownModel, *, listed: bool = False) -> ModelDetails:
    """``details`` of show and ps; ``listed``: of tags, which adds two lengths (7.5)."""
    config, facts = model.stored.config, model.facts
    level = config.file_type
    if level in ("", "unknown") and facts is not None and facts.file_type != "unknown":
        level = facts.file_type
    return ModelDetails(
        parent_model=model.stored.parent,
        format=config.model_format,
        family=config.model_family,
        families=None if config.model_families is None else list(config.model_families),
        parameter_size=config.model_type,
        quantization_level=level,
        context_length=(config.context_length or (facts.context_length if facts else 0))
        if listed
        else 0,
        embedding_length=(config.embedding_length or (facts.embedding_length if facts else 0))
        if listed
        else 0,
    )


def listed(model: KnownModel) -> ListedModel:
    """One entry of tags."""
    stored = model.stored
    return ListedModel(
        name=model.short_name,
        model=model.short_name,
        remote_model=stored.config.remote_model,
        remote_host=stored.config.remote_host,
        modified_at=local_time(stored.modified_at_ns),
        size=stored.size,
        digest=stored.digest,
        details=details(model, listed=True),
        capabilities=list(model.capabilities),
    )
