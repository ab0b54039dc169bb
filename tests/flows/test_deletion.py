"""Deletion: when everything with a text has been deleted, neither Redis nor a file of the data folder contains it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.documents.text_index import TextIndex
from shared.redis_connection import connect
from testing.stack import Stack
from testing.waiting import wait_until
from workers.io.word_purger import CHECK_SECONDS, TURN_KEY, WordPurger

COLLECTION = "unsaid"


class Texts:
    """Texts with a secret word of their own in a stack, made and deleted over HTTP."""

    def __init__(self, stack: Stack, word: str) -> None:
        self.stack, self.word = stack, word
        self.client = connect(stack.redis_url())
        self.values: Any = redis.Redis.from_url(stack.redis_url())

    @property
    def sentence(self) -> str:
        return f"The password of the cellar is {self.word}."

    def send(self, method: str, path: str, **options: Any) -> Any:
        answer = self.stack.client.request(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def add_document(self) -> Callable[[], None]:
        files = [("file", ("cellar.txt", self.sentence.encode()))]
        [document] = self.send("POST", f"/collections/{COLLECTION}/documents", files=files)["data"]
        self.stack.ended(document["job"])
        return lambda: self.send("DELETE", f"/documents/{document['id']}?permanent=true")

    def delete_jobs(self, *jobs: str) -> None:
        for job in jobs:
            self.send("DELETE", f"/jobs/{job}")

    def search(self) -> Callable[[], None]:
        answer = self.stack.post(f"/collections/{COLLECTION}/search", {"query": f"password {self.word}"}, Prefer="respond-async")
        job = self.stack.ended(answer.json()["id"])
        assert self.word in str(job["result"])
        return lambda: self.delete_jobs(job["id"])

    def generate(self) -> Callable[[], None]:
        messages = [{"role": "user", "content": f"What is the password, if not {self.word}?"}]
        job = self.stack.ended(self.send("POST", "/generate", json={"messages": messages, "collection": COLLECTION})["id"])
        assert self.word in str(job["result"])
        return lambda: self.delete_jobs(job["id"])

    def chat(self) -> Callable[[], None]:
        session = "about-the-cellar"
        body = {"session": session, "message": self.sentence, "collection": COLLECTION, "max_tokens": 500}
        turn = self.send("POST", "/chat", json=body)["turn"]
        assert self.word in turn["answer"]

        def delete() -> None:
            self.send("DELETE", f"/chat/sessions/{session}")
            # Nobody waits for the minute in which it could be restored, after which its jobs are deleted, too.
            for key in self.client.scan_iter("eh:session:*:deleted*"):
                self.client.delete(key)
            self.delete_jobs(turn["id"])

        return delete

    def respond(self) -> Callable[[], None]:
        conversation = self.send("POST", "/v1/conversations", json={})["id"]
        body = {"model": "echo", "input": self.sentence, "conversation": conversation}
        response = self.send("POST", "/v1/responses", json=body)
        assert self.word in str(response["output"])

        def delete() -> None:
            self.send("DELETE", f"/v1/conversations/{conversation}")
            self.send("DELETE", f"/v1/responses/{response['id']}")

        return delete

    def store_file(self) -> Callable[[], None]:
        form = {"files": {"file": ("cellar.txt", self.sentence.encode())}, "data": {"purpose": "assistants"}}
        file = self.send("POST", "/v1/files", **form)["id"]
        store = self.send("POST", "/v1/vector_stores", json={"name": "cellar", "file_ids": [file]})["id"]
        done = lambda: self.send("GET", f"/v1/vector_stores/{store}/files/{file}")["status"] == "completed"  # noqa: E731
        wait_until(done, "the file is indexed")
        found = self.send("POST", f"/v1/vector_stores/{store}/search", json={"query": f"password {self.word}"})
        assert self.word in str(found["data"])
        [search] = self.send("GET", "/jobs?kind=search&limit=1")["data"]

        def delete() -> None:
            self.delete_jobs(search["id"])
            self.send("DELETE", f"/v1/vector_stores/{store}")
            self.send("DELETE", f"/v1/files/{file}")

        return delete

    def keys_with_the_word(self) -> list[str]:
        """Keys of Redis whose name or value contains the word."""
        word = self.word.encode()
        return [
            key.decode() for key in self.values.scan_iter(count=1000) if word in key or word in repr(self.value(key)).encode()
        ]

    def value(self, key: bytes) -> object:
        kind = self.values.type(key)
        reads: dict[bytes, Callable[[], Any]] = {
            b"string": lambda: self.values.get(key),
            b"hash": lambda: self.values.hgetall(key),
            b"list": lambda: self.values.lrange(key, 0, -1),
            b"set": lambda: self.values.smembers(key),
            b"zset": lambda: self.values.zrange(key, 0, -1),
            b"stream": lambda: self.values.xrange(key),
            b"none": lambda: None,
        }
        return reads[kind]()

    def files_with_the_word(self) -> list[Path]:
        """Files of the data folder whose name or content contains the word, in capitals or not."""
        word = self.word.encode().lower()
        found = []
        for path in self.stack.data.rglob("*"):
            try:
                if self.word in path.name or (path.is_file() and word in path.read_bytes().lower()):
                    found.append(path)
            except FileNotFoundError:
                continue
        return found

    def rewrite_the_log(self) -> None:
        """Have Redis rewrite its append-only file, as maintenance does once a day."""
        # Compressed values could hide the word.
        self.client.config_set("rdbcompression", "no")
        before = self.client.info("persistence")
        self.client.bgrewriteaof()

        def is_rewritten() -> bool:
            now = self.client.info("persistence")
            return not (now["aof_rewrite_in_progress"] or now["aof_rewrite_scheduled"]) and now != before

        wait_until(is_rewritten, "the append-only file is rewritten")

    def purge_words(self) -> None:
        """Purge the text indexes, as maintenance does once a day."""
        self.client.delete(TURN_KEY)
        purger = WordPurger(self.client, TextIndex(self.stack.data / "text-index"), 0.0, -CHECK_SECONDS, timer=lambda: 0.0)
        purger.run_once(0.0)

    def is_in_no_file(self) -> bool:
        self.purge_words()
        return self.files_with_the_word() == []


@pytest.mark.parametrize("kind", ["search", "generate", "chat", "respond", "store_file"])
def test_nothing_of_a_text_is_left_when_all_copies_were_deleted(stack: Stack, kind: str) -> None:
    texts = Texts(stack, f"{kind.replace('_', '')}quokka".upper())
    delete_document = texts.add_document()
    delete_copies = getattr(texts, kind)()
    assert texts.keys_with_the_word(), "the copy is in Redis"
    delete_document()
    delete_copies()
    wait_until(lambda: texts.keys_with_the_word() == [], f"no key has the word, and not {texts.keys_with_the_word()}")
    texts.rewrite_the_log()
    wait_until(texts.is_in_no_file, "no file has the word")
    assert texts.files_with_the_word() == []
