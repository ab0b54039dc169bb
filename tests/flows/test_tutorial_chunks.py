"""The chunk calls of the chat_gp_me tutorial, on documents that the other calls share."""

from typing import Any

from testing.stack import Stack

LONG = "\n\n".join(
    f"Paragraph {number} of a long text about the boilers of engine house number {number}." for number in range(60)
)


def upload(stack: Stack, name: str, text: str) -> list[str]:
    files = {"file": (name, text.encode())}
    answer = stack.client.post("/upload", files=files, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["document_ids"])


def texts(stack: Stack, *ids: str) -> dict[str, str]:
    answer: dict[str, Any] = stack.post("/get_texts", {"ids": list(ids)}).json()
    assert answer["count"] == len(answer["documents"])
    return {found["id"]: found["content"] for found in answer["documents"]}


def delete(stack: Stack, path: str, body: Any = None) -> Any:
    return stack.client.request("DELETE", path, json=body)


def test_chunks_are_uploaded_read_and_deleted(stack: Stack) -> None:
    ids = upload(stack, "chunks.txt", LONG)
    assert len(ids) > 3
    found = texts(stack, *ids, "no-such-chunk")
    assert list(found) == ids
    assert found[ids[0]].startswith("Paragraph 0")
    assert delete(stack, f"/delete_chunk/{ids[0]}").json()["deleted_id"] == ids[0]
    assert delete(stack, "/delete_document", {"ids": ids[1:3]}).json()["deleted_ids"] == ids[1:3]
    assert stack.post("/remove", {"ids": [ids[3], "gone"]}).json()["removed_ids"] == [ids[3]]
    assert list(texts(stack, *ids)) == ids[4:]
    assert delete(stack, f"/delete_chunk/{ids[0]}").status_code == 404
    assert delete(stack, "/delete_document", {"ids": ids[:4]}).status_code == 404
    document = ids[0].partition(":")[0]
    assert stack.client.get(f"/documents/{document}").json()["chunks"] == len(ids) - 4
    assert delete(stack, "/delete_document", {"ids": [document]}).json()["deleted_ids"] == [document]
    assert texts(stack, *ids) == {}


def test_the_hits_of_a_query_are_removed(stack: Stack) -> None:
    [secret] = upload(stack, "secret.txt", "The secret word is abracadabra.")
    upload(stack, "one.txt", "Nothing at all.")
    assert secret in stack.post("/remove", {"query": "What is the secret word abracadabra?"}).json()["removed_ids"]
    assert texts(stack, secret) == {}


def test_clearing_needs_a_confirmation(stack: Stack) -> None:
    [kept] = upload(stack, "kept.txt", "Kept until that is confirmed.")
    for body in ({}, {"confirm": False}):
        assert stack.post("/clear_db", body).status_code == 422
    assert list(texts(stack, kept)) == [kept]
    assert stack.post("/clear_db", {"confirm": True}).json()["removed_count"] >= 1
    assert texts(stack, kept) == {}
    assert stack.post("/clear_db", {"confirm": True}).json()["removed_count"] == 0


def test_an_upload_that_cannot_be_searched_says_so(stack: Stack) -> None:
    binary = bytes(range(256)) * 40
    answer = stack.client.post("/upload", files={"file": ("x.bin", binary)}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["message"] == "x.bin was received, but cannot be searched: unsupported"
