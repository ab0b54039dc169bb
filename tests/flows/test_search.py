"""Search through the HTTP API: modes, filters, chunks and reindexing."""

import json
from typing import Any

import pytest

from testing.stack import Stack
from tests.flows.test_documents import settled

ENGINES = "Steam engines want a boiler.\n\nThe valve XK-4711 is inspected on Mondays.\fPage two: pistons and their rings."


def add(stack: Stack, collection: str, name: str, text: str, **metadata: Any) -> dict[str, Any]:
    answer = stack.client.post(
        f"/collections/{collection}/documents",
        files={"file": (name, text.encode())},
        data={"metadata": json.dumps(metadata)},
    )
    assert answer.status_code == 202, answer.text
    view = settled(stack, answer.json()["data"][0])
    assert (view["status"], view["metadata"]) == ("ready", metadata)
    return view


@pytest.fixture(scope="module")
def works(stack: Stack) -> dict[str, dict[str, Any]]:
    return {
        "engines": add(stack, "works", "engines.txt", ENGINES, year=1804, draft=False),
        "gardens": add(stack, "works", "gardens.txt", "Roses want sun, and no boiler at all.", year=1990),
    }


def search(stack: Stack, **body: Any) -> list[dict[str, Any]]:
    return list(stack.post("/collections/works/search", body).json()["data"])


def test_keyword_vector_and_hybrid_search_find_their_documents(stack: Stack, works: dict[str, Any]) -> None:
    [hit] = search(stack, query="xk-4711", mode="keyword")
    assert (hit["document"], hit["page"]) == ("engines.txt", 1)
    assert search(stack, query="flowers", mode="keyword") == []
    assert search(stack, query="roses want water", mode="vector")[0]["document"] == "gardens.txt"
    both = search(stack, query="When is the valve XK-4711 inspected?")
    assert (both[0]["document"], both[0]["score"]) == ("engines.txt", 1.0)
    assert search(stack, query="flowers", threshold=0.99) == []


def test_filters_apply_to_upload_metadata(stack: Stack, works: dict[str, Any]) -> None:
    assert {hit["document"] for hit in search(stack, query="boiler", filter={"metadata.year": {"lt": 1900}})} == {"engines.txt"}
    assert {hit["document"] for hit in search(stack, query="boiler", filter={"metadata.draft": {"ne": False}})} == {"gardens.txt"}
    assert {hit["page"] for hit in search(stack, query="boiler", filter={"page": 2})} == {2}
    refused = stack.client.post("/collections/works/search", json={"query": "x", "filter": {"or": [{"year": 1}]}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "filter.or.0.year")


def test_a_generation_can_set_search_options_of_its_collection(stack: Stack, works: dict[str, Any]) -> None:
    source = {"name": "works", "mode": "keyword", "top_k": 1, "filter": {"metadata.year": 1990}}
    view = stack.ended(stack.generate("Who wants a boiler?", collection=source)["id"])
    assert [citation["document"] for citation in view["result"]["citations"]] == ["gardens.txt"]
    refused = stack.client.post("/generate", json={"prompt": "x", "collection": {"name": "works", "mode": "odd"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "collection.mode")


def test_hits_are_reranked_unless_the_request_says_no(stack: Stack, works: dict[str, Any]) -> None:
    query = "Which part has pistons and rings?"
    plain = search(stack, query=query, mode="keyword", rerank=False)
    assert [hit["rerank_score"] for hit in plain] == [None] * len(plain)
    for rerank in ({}, {"rerank": None}, {"rerank": True}, {"rerank": "overlap"}):
        hits = search(stack, query=query, mode="keyword", **rerank)
        assert (hits[0]["page"], hits[0]["rerank_score"]) == (2, pytest.approx(3 / 6))
        # Each hit keeps the score of the search.
        assert {hit["chunk_id"]: hit["score"] for hit in hits} == {hit["chunk_id"]: hit["score"] for hit in plain}
    assert search(stack, query=query, threshold=0.4)[0]["page"] == 2
    assert len(search(stack, query=query, threshold=0.4)) == 1
    for rerank, status in (("nope", 404), ("echo", 404), (5, 422), ("", 422)):
        refused = stack.client.post("/collections/works/search", json={"query": query, "rerank": rerank})
        assert (refused.status_code, "rerank" in refused.json()["error"]["param"]) == (status, True), refused.text
    source = {"name": "works", "top_k": 1, "rerank": True}
    result = stack.ended(stack.generate(query, collection=source)["id"])["result"]
    assert [citation["page"] for citation in result["citations"]] == [2]


def test_a_question_that_follows_others_goes_to_the_model_before_the_search(stack: Stack, works: dict[str, Any]) -> None:
    messages = [
        {"role": "user", "content": "Who wants a boiler?"},
        {"role": "assistant", "content": "Steam engines do."},
        {"role": "user", "content": "When is its valve XK-4711 inspected?"},
    ]
    body = {"messages": messages, "collection": {"name": "works", "mode": "keyword"}, "max_tokens": 64}
    job = stack.ended(stack.post("/generate", body).json()["id"])
    assert [attempt["queue"] for attempt in job["attempts"]] == ["gpu.echo", "io", "gpu.echo"]
    # The echo engine repeats its prompt, which is not a question, so the search uses the message.
    result = job["result"]
    assert (result["retrieval"]["query"], result["retrieval"]["rewritten"]) == (messages[-1]["content"], False)
    assert (result["grounded"], result["citations"][0]["page"]) == (True, 1)
    assert "Rewrite the last question" not in result["text"]
    plain = stack.ended(stack.post("/generate", {**body, "rewrite": False}).json()["id"])
    assert [attempt["queue"] for attempt in plain["attempts"]] == ["io", "gpu.echo"]
    # So it is in a chat, whose first message has nothing before it.
    chat = {"session": "rewrite", "collection": "works"}
    for message, queues in (("Who wants a boiler?", ["io", "gpu.echo"]), ("And roses?", ["gpu.echo", "io", "gpu.echo"])):
        turn = stack.post("/chat", {**chat, "message": message}).json()["turn"]
        assert [attempt["queue"] for attempt in stack.job(turn["id"])["attempts"]] == queues
        assert (turn["grounded"], turn["retrieval"]["query"]) == (True, message)


def test_passages_are_read_with_their_neighbours_within_a_budget(stack: Stack) -> None:
    text = (
        " ".join(f"Sentence {n} of the long report." for n in range(60))
        + " The keyword is Pondicherry. "
        + "Much more text. " * 60
    )
    stack.client.post("/collections", json={"name": "long", "chunk_tokens": 40, "chunk_overlap_tokens": 10})
    add(stack, "long", "report.txt", text)

    def cited(**options: Any) -> int:
        source = {"name": "long", "mode": "keyword", "top_k": 1, **options}
        [citation] = stack.ended(stack.generate("Pondicherry", collection=source)["id"])["result"]["citations"]
        assert citation["quote"] == text[citation["start"] : citation["end"]]
        assert "Pondicherry" in citation["quote"]
        return len(citation["quote"])

    alone, usual = cited(neighbours=0), cited()
    assert usual > 1.5 * alone
    assert cited(neighbours=2) > usual
    # Neighbours that exceed the budget are left out. A token of the echo engine is a byte.
    assert cited(neighbours=2, context_tokens=alone + 400) == alone


def test_an_answer_says_that_the_documents_do_not_have_it(stack: Stack, works: dict[str, Any]) -> None:
    source = {"name": "works", "min_relevance": 0.9}
    job = stack.ended(stack.generate("What is the capital of France?", collection=source)["id"])
    result = job["result"]
    assert result["text"] == "The documents do not contain an answer to this question."
    assert (result["grounded"], result["citations"], result["usage"]["total_tokens"]) == (False, [], 0)
    turn = stack.post("/chat", {"message": "What is the capital of France?", "collection": source}).json()["turn"]
    assert (turn["answer"], turn["grounded"]) == (result["text"], False)
    found = stack.ended(stack.generate("Steam engines want a boiler", collection=source, max_tokens=400)["id"])["result"]
    assert (found["grounded"], found["citations"][0]["document"]) == (True, "engines.txt")
    # The echo engine repeats the marker of the passage.
    assert (found["citations"][0]["cited"], found["retrieval"]["reranker"]) == (True, "overlap")
    for field, value in (("min_relevance", 2), ("context_tokens", 5), ("neighbours", 6)):
        refused = stack.client.post("/generate", json={"prompt": "x", "collection": {"name": "works", field: value}})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, f"collection.{field}")


def test_a_search_explains_ranks_and_what_was_left_out(stack: Stack, works: dict[str, Any]) -> None:
    body = {"query": "boiler XK-4711", "filter": {"metadata.year": {"lt": 1900}, "page": 1}, "top_k": 5}
    answer = stack.post("/collections/works/search?explain=1", body).json()
    [hit, explain] = [answer["data"][0], answer["explain"]]
    assert hit["explain"]["vector"]["rank"] == hit["explain"]["keyword"]["rank"] == hit["explain"]["rerank"]["rank"] == 1
    assert hit["explain"]["fused"] == hit["score"] == 1.0
    assert hit["explain"]["rerank"]["score"] == hit["rerank_score"]
    # Three chunks: one of the gardens, and the second page of the engines.
    assert (explain["mode"], explain["chunks"], explain["lists"]) == ("hybrid", 3, {"vector": 1, "keyword": 1})
    assert explain["removed"] == {"filter": 2, "not_ready": 0, "threshold": 0}
    assert explain["filter"] == [{"condition": "metadata.year lt", "removed": 1}, {"condition": "page eq", "removed": 1}]
    assert (explain["rerank"]["model"], explain["rerank"]["applied"], explain["rerank"]["candidates"]) == ("overlap", True, 1)
    alone = stack.post("/collections/works/search", {**body, "mode": "vector", "rerank": False, "explain": True}).json()
    place = alone["data"][0]["explain"]
    assert (place["vector"]["rank"], place["keyword"], place["fused"], "rerank" in place) == (1, None, None, False)
    assert "rerank" not in alone["explain"]
    assert "explain" not in stack.post("/collections/works/search", body).json()
    refused = stack.client.post("/collections/works/search?explain=2", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "explain")


@pytest.mark.parametrize("given", ["[]", '{"a": null}', '{"a": [1]}', "{", json.dumps({str(n): n for n in range(33)})])
def test_invalid_metadata_is_rejected(stack: Stack, given: str) -> None:
    refused = stack.client.post("/collections/refused/documents", files={"file": ("a.txt", b"a")}, data={"metadata": given})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_value")
    assert refused.json()["error"]["param"].startswith("metadata")


def test_chunks_can_be_listed_and_deleted(stack: Stack) -> None:
    view = add(stack, "pieces", "pieces.txt", "First page.\fSecond page.\fThird page.")
    path = f"/documents/{view['id']}/chunks"
    first = stack.client.get(path, params={"limit": 2}).json()
    assert [chunk["text"] for chunk in first["data"]] == ["First page.", "Second page."]
    rest = stack.client.get(path, params={"after": first["next"]}).json()
    assert ([chunk["text"] for chunk in rest["data"]], rest["has_more"]) == (["Third page."], False)
    gone = first["data"][1]
    answer = stack.client.delete(f"{path}/{gone['position']}")
    assert answer.json() == {"id": gone["id"], "object": "chunk", "deleted": True}
    assert stack.client.delete(f"{path}/{gone['position']}").status_code == 404
    assert stack.client.delete(f"{path}/odd").status_code == 404
    assert [chunk["text"] for chunk in stack.client.get(path).json()["data"]] == ["First page.", "Third page."]
    assert stack.client.get(f"/documents/{view['id']}").json()["chunks"] == 2
    hits = stack.post("/collections/pieces/search", {"query": "second page", "top_k": 10}).json()["data"]
    assert {hit["page"] for hit in hits} == {1, 3}


def test_a_collection_has_its_own_chunk_size_and_can_be_reindexed_with_another(stack: Stack) -> None:
    made = stack.client.post("/collections", json={"name": "own", "chunk_tokens": 32, "chunk_overlap_tokens": 0})
    assert (made.status_code, made.json()["chunk_tokens"], made.json()["documents"]) == (201, 32, 0)
    assert stack.client.post("/collections", json={"name": "own"}).status_code == 409
    assert (
        stack.client.post("/collections", json={"name": "no", "chunk_tokens": 20, "chunk_overlap_tokens": 11}).status_code == 422
    )
    assert stack.client.post("/collections", json={"name": "no", "embedding_model": "nobody"}).status_code == 404
    text = " ".join(f"Sentence number {n} of a text." for n in range(60))
    view = add(stack, "own", "text.txt", text)
    many = view["chunks"]
    assert many > 8
    assert stack.client.patch("/collections/own", json={"chunk_tokens": 200}).json()["chunk_tokens"] == 200
    answer = stack.client.post("/collections/own/reindex", json={}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    assert (result["documents"], result["skipped"]) == (1, [])
    assert stack.client.get(f"/documents/{view['id']}").json()["chunks"] == result["chunks"] < many / 2
    collection = stack.client.get("/collections/own").json()
    assert (collection["embedding_revision"], collection["reindex_job"]) == (result["embedding_revision"], None)
    hits = stack.post("/collections/own/search", {"query": "sentence number 59", "mode": "keyword"}).json()["data"]
    assert all(text[hit["start"] : hit["end"]] == hit["text"] for hit in hits)
