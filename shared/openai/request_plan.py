"""Request plans: the jobs that a request of ``/v1`` asks for, and the response that they make once they have completed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.errors import InvalidValue, NotFound
from shared.jobs.models import Job
from shared.jobs.queue_names import generation_queue
from shared.jobs.servable_models import ServableModels, expected_service, expected_tokens
from shared.jobs.submission import Submission
from shared.models.engine_features import check_generation
from shared.openai.conversations import Conversation, Conversations
from shared.openai.responses.store import StoredResponse, StoredResponses
from shared.openai.vector_stores import find_collection
from shared.rights import ALL_RIGHTS, SEARCH, Rights

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class PlanContext:
    """What a plan needs besides the request.

    ``end_user`` is the end user, if the request names none. Parts of requests that are ignored are added to
    ``ignored_params``. ``responses`` are those that a request can continue, and ``keeps_responses`` says whether its own response
    becomes one of them. ``documents`` has the collections that a ``file_search`` can search, and ``passages`` is how many it finds if the
    request does not say; ``rewrites_questions`` says whether the model rewrites a question that follows an answer before that. ``rights`` belong to the key of the request; ``models`` and ``documents`` are restricted to
    them, and ``require_job`` raises Forbidden for a stored response that the key may not see, as ``require_conversation`` does for a
    conversation.
    """

    models: ServableModels
    owner: str
    end_user: str = ""
    ignored_params: list[str] = field(default_factory=list)
    responses: StoredResponses | None = None
    conversations: Conversations | None = None
    keeps_responses: bool = False
    documents: Documents | None = None
    passages: int = 5
    rewrites_questions: bool = False
    rights: Rights = ALL_RIGHTS
    require_job: Callable[[Job], None] = lambda _: None
    require_conversation: Callable[[Conversation], None] = lambda _: None

    def find_response(self, response: str) -> StoredResponse:
        """The owner's stored response with this id. Raises NotFound and Forbidden."""
        if self.responses is None:
            raise NotFound("Stored responses cannot be read here.", code="response_not_found")
        stored = self.responses.find(response, self.owner)
        self.require_job(stored.job)
        return stored

    def read_conversation(self, conversation: str) -> list[dict[str, Any]]:
        """The items of the owner's conversation, which has room for more. Raises InvalidValue, NotFound, Forbidden and ConversationFull."""
        if self.conversations is None:
            raise InvalidValue("conversation: cannot be used in a batch; send the items as input", param="conversation")
        found = self.conversations.find(conversation, self.owner)
        self.require_conversation(found)
        self.conversations.require_room(found)
        return self.conversations.items(found, self.owner)[0]

    def find_collection(self, store: str, param: str) -> Collection:
        """The owner's collection that a vector store is. Raises NotFound, Forbidden, and InvalidValue if it has expired."""
        if self.documents is None:
            raise NotFound("Vector stores cannot be searched here.", code="vector_store_not_found", param=param)
        self.rights.require_scope((SEARCH,), f"{param}: an answer from documents")
        return find_collection(self.documents, self.owner, store, param)

    def find_item(self, item: str) -> Mapping[str, Any] | None:
        """An item of one of the owner's stored responses, or None. Raises Forbidden."""
        stored = self.responses.find_by_item(item, self.owner) if self.responses is not None else None
        if stored is None:
            return None
        self.require_job(stored.job)
        return stored.find_item(item)


@dataclass(frozen=True, kw_only=True)
class RequestPlan:
    """The jobs of a request. Two spellings of a request that mean the same have equal ``content``."""

    submissions: Sequence[Submission]
    make_body: Callable[[Sequence[Job]], dict[str, Any]]
    content: Any

    def response_body(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """The response for the completed jobs, in the order of the submissions. Raises InvalidValue."""
        return self.make_body(jobs)


class Prompt(NamedTuple):
    """One input: its part of the spec, its length in characters, and the field of the request that it came from."""

    spec: Mapping[str, Any]
    characters: int
    param: str


def plan_generation(
    context: PlanContext,
    make_body: Callable[[Sequence[Job]], dict[str, Any]],
    *,
    model: str | None,
    spec: Mapping[str, Any],
    prompts: Sequence[Prompt],
    copies: int,
    seed: int | None,
    end_user: str | None,
    metadata: Mapping[str, str] | None = None,
    priority: int = 5,
    concurrency: Mapping[str, Any] | None = None,
) -> RequestPlan:
    """A job for each of ``copies`` answers to each of the prompts, in this order. Raises NotFound, ModelNotServed and InvalidValue."""
    requested = context.models.find_generation_model(model)
    entry = requested.entry
    for prompt in prompts:
        context.models.check_prompt_length(prompt.characters, prompt.param)
        check_generation(entry, {**prompt.spec, **spec})
    submissions = []
    for number in range(len(prompts) * copies):
        prompt, copy = prompts[number // copies], number % copies
        seeded = {} if seed is None else {"seed": seed + copy if seed <= MAX_SEED - copy else seed - copy}
        submissions.append(
            Submission(
                kind="generate",
                queue=generation_queue(entry.name),
                spec={**prompt.spec, **spec, **seeded},
                owner=context.owner,
                end_user=end_user or context.end_user,
                model=requested.name,
                priority=priority,
                cost=expected_service(entry, prompt.characters, spec.get("max_tokens")),
                tokens=expected_tokens(entry, prompt.characters, spec.get("max_tokens")),
                metadata=metadata or {},
                **(concurrency or {}),
            )
        )
    content = [requested.name, spec, [prompt.spec for prompt in prompts], copies, seed]
    return RequestPlan(submissions=submissions, make_body=make_body, content=content)
