"""Models that requests can name: which of the models file a worker serves or can load, and what a generation by one will cost."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Self

from shared.errors import InvalidValue, ModelNotServed, NotFound
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.worker_registry import WorkerRegistry
from shared.models.catalogue import EMBED, GENERATE, RERANK, Catalogue, ModelEntry, RequestedModel
from shared.rights import ALL_RIGHTS, Rights
from shared.settings import Settings

# A rough average of texts in European languages, to estimate work before a prompt is tokenized.
CHARACTERS_PER_TOKEN = 4


class ServableModels:
    """The models of one server, as requests name them. Safe to use from many threads."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, worker_registry: WorkerRegistry, assignments: ModelAssignments
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._worker_registry = worker_registry
        self._assignments = assignments
        self._rights = ALL_RIGHTS

    def restricted_to(self, rights: Rights) -> Self:
        """The same models for a key with these rights: each use of another model raises Forbidden."""
        restricted = copy(self)
        restricted._rights = rights
        return restricted

    def find_generation_model(self, name: str | None) -> RequestedModel:
        """The model of a request with its adapter, or the default model. Raises NotFound, InvalidValue, Forbidden or ModelNotServed."""
        default = self._catalogue.default
        requested = self._catalogue.find_requested(name, task=GENERATE) if name is not None else RequestedModel(default())
        entry = requested.entry
        if entry.task != GENERATE:
            kind = "an embedding model" if entry.task == EMBED else "a reranker"
            raise InvalidValue(f"Model {entry.name!r} is {kind} and cannot generate text.", param="model")
        self._rights.require_model(requested.name)
        if self._worker_registry.has_served(entry.name) or self._can_be_loaded(entry.name):
            return requested
        raise ModelNotServed(
            f"No worker serves model {entry.name!r}. Start one with: enginehouse worker gpu --model {entry.name}",
            param="model",
            retry_after=5,
        )

    def find_embedding_model(self, name: str | None) -> ModelEntry:
        """The model of a request, or the default one. Raises NotFound or InvalidValue."""
        entry = self._catalogue.embedding() if name is None else self._catalogue.get_model(name, task=EMBED)
        if entry.task != EMBED:
            raise InvalidValue(f"model: model {entry.name!r} has the task {entry.task} and cannot embed text", param="model")
        self._rights.require_model(entry.name)
        return entry

    def find_rerank_model(self, name: str | None) -> ModelEntry:
        """The model of a request that ranks documents, or the default one. Raises NotFound or InvalidValue."""
        entry = self._catalogue.reranking() if name is None else self._catalogue.get_model(name, task=RERANK)
        if entry.task != RERANK:
            raise InvalidValue(f"model: model {entry.name!r} has the task {entry.task} and cannot rank documents", param="model")
        self._rights.require_model(entry.name)
        return entry

    def find_search_reranker(self, rerank: bool | str | None, param: str = "rerank") -> str:
        """The name of the model that ranks the hits of a search; "" if none does.

        ``rerank`` is a model's name, True for the default reranker, False for none, or None for what the settings say. Raises NotFound,
        InvalidValue or Forbidden.
        """
        models = [entry.name for entry in self._catalogue.models if entry.task == RERANK]
        if rerank is False or (rerank is None and not (models and self._settings.rerank_searches)):
            return ""
        if not models:
            raise InvalidValue(
                f"{param}: the models file has no model with task rerank. Add one, or omit the field.", param=param
            )
        if isinstance(rerank, str) and rerank not in models:
            raise NotFound(
                f"{param}: reranker {rerank!r} does not exist. Use one of: {', '.join(models)}",
                code="model_not_found",
                param=param,
            )
        if isinstance(rerank, str):
            self._rights.require_model(rerank)
            return rerank
        # Like the embedding model, the default reranker is part of the search, and not a model that the caller has chosen.
        return self._catalogue.reranking().name

    def answer_limits(self, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """How a model reads passages: from the options that are set, else its entry in the models file, else the settings."""
        settings, neighbours = self._settings, self._catalogue.get_model(model).neighbours
        limits: dict[str, Any] = {
            "neighbours": settings.retrieve_neighbours if neighbours is None else neighbours,
            "context_tokens": settings.retrieve_tokens,
            "min_relevance": settings.min_relevance,
        }
        return limits | {name: options[name] for name in limits if options.get(name) is not None}

    def check_prompt_length(self, characters: int, param: str) -> None:
        """Raise InvalidValue if a prompt has more characters, over all its messages, than the settings allow."""
        limit = self._settings.max_prompt_characters
        if characters > limit:
            raise InvalidValue(f"{param}: may have at most {limit} characters over all messages, not {characters}", param=param)

    def _can_be_loaded(self, model: str) -> bool:
        return self._settings.load_on_demand and any(
            model in assignment.loadable_models for assignment in self._assignments.list_active(2 * self._settings.lease_seconds)
        )


def expected_service(entry: ModelEntry, characters: int, max_tokens: int | None) -> int:
    """Estimate the service of a generation, in tokens. A generated token costs about twice as much as a prompt token."""
    return characters // CHARACTERS_PER_TOKEN + 2 * (max_tokens or entry.max_tokens)


def expected_tokens(entry: ModelEntry, characters: int, max_tokens: int | None) -> int:
    """Estimate the tokens that a generation may use: its prompt and its longest answer."""
    return characters // CHARACTERS_PER_TOKEN + (entry.max_tokens if max_tokens is None else max_tokens)
