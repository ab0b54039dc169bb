"""The scopes of all calls: which of them a key needs, by blueprint, and by endpoint for calls that differ from their blueprint.

One of the listed scopes is enough. Calls on jobs accept every scope that has jobs, and ``api.owned_jobs`` then looks at the job.
"""

from shared.rights import ADMIN, BATCHES, CHAT, DOCUMENTS, GENERATE, METRICS, SEARCH, WEBHOOKS

ANY_KEY: tuple[str, ...] = ()
JOBS = (GENERATE, DOCUMENTS, CHAT, SEARCH, BATCHES)

BLUEPRINTS: dict[str, tuple[str, ...]] = {
    "generate": (GENERATE,),
    "jobs": JOBS,
    "events": JOBS,
    "batches": (DOCUMENTS,),
    "uploads": (DOCUMENTS,),
    "collections": (DOCUMENTS,),
    "documents": (DOCUMENTS,),
    "document_pages": (DOCUMENTS,),
    "chat": (CHAT,),
    "tutorial_chat": (CHAT,),
    "tutorial_compat": (DOCUMENTS,),
    "webhooks": (WEBHOOKS,),
    "me": ANY_KEY,
    "attention": ANY_KEY,
    "openai_chat_completions": (GENERATE,),
    "openai_completions": (GENERATE,),
    "openai_embeddings": (GENERATE,),
    "openai_rerank": (GENERATE,),
    "openai_responses": (GENERATE,),
    "openai_conversations": (GENERATE,),
    "openai_models": ANY_KEY,
    "openai_files": (DOCUMENTS, BATCHES),
    "openai_batches": (BATCHES,),
    "openai_vector_stores": (DOCUMENTS,),
    "openai_vector_store_files": (DOCUMENTS,),
    "openai_vector_store_batches": (DOCUMENTS,),
    "openai_tokenization": (GENERATE,),
    "models": ANY_KEY,
    "metrics": (METRICS,),
    "stats": ANY_KEY,
    "usage": ANY_KEY,
    "dead_letters": (ADMIN,),
    "gpus": (ADMIN,),
    "admin_jobs": (ADMIN,),
    "queues": (ADMIN,),
    "overview": (ADMIN,),
    "keys": (ADMIN,),
    "owners": (ADMIN,),
}
"""Blueprints with calls that need a key. Those whose calls are all open have no entry."""

ENDPOINTS: dict[str, tuple[str, ...]] = {
    # What a search needs and finds.
    "collections.list_collections": (DOCUMENTS, SEARCH),
    "collections.show_collection": (DOCUMENTS, SEARCH),
    "collections.search_collection": (SEARCH,),
    "document_pages.show_page_picture": (DOCUMENTS, SEARCH),
    "document_pages.show_page_text": (DOCUMENTS, SEARCH),
    "openai_vector_stores.list_vector_stores": (DOCUMENTS, SEARCH),
    "openai_vector_stores.show_vector_store": (DOCUMENTS, SEARCH),
    "openai_vector_stores.search_vector_store": (SEARCH,),
}


def scopes_of(endpoint: str) -> tuple[str, ...]:
    """The scopes, one of which the call needs; empty if any key will do. Raises TypeError if the tables have no entry."""
    blueprint = endpoint.partition(".")[0]
    if endpoint not in ENDPOINTS and blueprint not in BLUEPRINTS:
        raise TypeError(f"{endpoint} has no scope: add it or its blueprint to api/scopes.py, or describe it as open")
    return ENDPOINTS.get(endpoint, BLUEPRINTS.get(blueprint, ANY_KEY))
