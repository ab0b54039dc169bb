"""The hash embedder: vectors of length 1 that are near if texts share words."""

import math

import pytest

from shared.errors import ModelUnavailable
from workers.index.hash_embedder import HashEmbedder
from workers.index.prefixes import Prefixes


def similarity(one: str, other: str) -> float:
    first, second = HashEmbedder("hash", "hash:384").embed_texts([one, other])
    return sum(a * b for a, b in zip(first, second, strict=True))


def test_texts_are_as_near_as_the_words_they_share() -> None:
    assert similarity("The boiler of house 7", "the BOILER, of house 7!") == pytest.approx(1)
    assert similarity("boiler of house 7", "boiler of house 8") > 0.5 > abs(similarity("boiler of house 7", "cats sleep all day"))


@pytest.mark.parametrize(
    "text", ["", "...", "word", "\ud800", "x " * 10_000], ids=["empty", "no word", "a word", "surrogate", "long"]
)
def test_every_text_has_a_vector_of_length_one(text: str) -> None:
    [vector] = HashEmbedder("hash", "hash:16").embed_texts([text])
    assert len(vector) == 16
    assert math.hypot(*vector) == pytest.approx(1)


def test_queries_and_passages_have_prefixes_of_their_own() -> None:
    plain = HashEmbedder("hash", "hash:64")
    asymmetric = HashEmbedder("hash", "hash:64", Prefixes(query="query: ", passage="passage: "))
    for role, text in (("query", "query: a cat"), ("passage", "passage: a cat"), ("raw", "a cat")):
        assert asymmetric.embed_texts(["a cat"], role=role) == plain.embed_texts([text])  # type: ignore[arg-type]
        assert plain.embed_texts(["a cat"], role=role) == plain.embed_texts(["a cat"])  # type: ignore[arg-type]
    assert asymmetric.max_tokens("query") == plain.max_tokens("query") - 1
    # A change of a prefix is another revision, and a model without prefixes keeps the one that it had.
    revisions = [
        Prefixes(query=query, passage=passage).identify("r") for query, passage in [("a", "b"), ("b", "a"), ("ab", ""), ("a", "")]
    ]
    assert len({*revisions, "r"}) == 5
    assert Prefixes(query="", passage=None).identify("r") == "r"
    with pytest.raises(ModelUnavailable, match=r"leaves 4\. Shorten query_prefix"):
        HashEmbedder("hash", "hash:64", Prefixes(query="word " * 250)).max_tokens("query")


@pytest.mark.parametrize("url", ["hash:", "hash:7", "hash:4097", "hash:-8", "hash:3.5", "hash:٣٨٤"])
def test_an_impossible_number_of_dimensions_is_rejected(url: str) -> None:
    with pytest.raises(ModelUnavailable, match="from 8 to 4096, such as hash:384"):
        HashEmbedder("hash", url)
