"""Tools around search: ``enginehouse evaluate``, the retriever of LangChain, and the benchmark on public sets."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse_client import AsyncClient, Client
from enginehouse_client.langchain import EnginehouseRetriever
from testing.repository import REPOSITORY
from testing.stack import Stack
from tests.flows.command import run

BOILERS = "The boiler is inspected every spring.\fA blocked valve XK-4711 must be replaced at once."
GARDENS = "Roses want sun and water.\fHedges are cut in autumn."
QUERY = "When is valve XK-4711 replaced?"


@pytest.fixture(scope="module")
def collection(stack: Stack) -> str:
    with Client(stack.url) as client:
        client.ingest("tools", [("boilers.txt", BOILERS.encode()), ("gardens.txt", GARDENS.encode())])
    return "tools"


def write_questions(folder: Path, *questions: dict[str, object]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    return path


def test_evaluate_prints_measures_of_each_mode_and_the_misses(stack: Stack, collection: str, tmp_path: Path) -> None:
    path = write_questions(
        tmp_path,
        {"question": QUERY, "document": "boilers.txt", "page": 2, "quote": "must be replaced at once", "kind": "valves"},
        {"question": "Roses?", "document": ["gardens.txt"], "kind": "plants"},
        {"question": "roses sun water", "document": "boilers.txt", "page": 1, "quote": "in no document", "kind": "plants"},
    )
    done = run(stack, "evaluate", path, "-c", collection, "--mode", "keyword", "--by-kind", "--misses", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row.get("kind", "all"): row for row in json.loads(done.stdout)}
    assert {name: row["questions"] for name, row in rows.items()} == {"all": 3, "valves": 1, "plants": 2}
    assert (rows["valves"]["recall@5"], rows["valves"]["mrr@10"], rows["valves"]["page_hit@5"]) == (1.0, 1.0, 1.0)
    assert (rows["plants"]["recall@10"], rows["all"]["recall@5"]) == (0.5, 0.6667)
    assert done.stderr.splitlines() == ["keyword: not found: roses sun water (boilers.txt page 1)"]
    both = run(stack, "evaluate", path, "-c", collection, "--mode", "keyword", "--mode", "hybrid").stdout.splitlines()
    assert [line.split("\t")[0] for line in both] == ["mode", "keyword", "hybrid"]


def test_evaluate_searches_with_the_standalone_form_when_asked(stack: Stack, collection: str, tmp_path: Path) -> None:
    history = [{"role": "user", "content": "What is XK-4711?"}, {"role": "assistant", "content": "A valve."}]
    follow_up = {"question": "And?", "standalone": QUERY, "history": history, "document": "boilers.txt", "page": 2}
    path = write_questions(tmp_path, follow_up)
    for options, recall in (([], 0.0), (["--standalone", "--misses"], 1.0)):
        done = run(stack, "evaluate", path, "-c", collection, "--mode", "keyword", "--json", *options)
        assert json.loads(done.stdout)[0]["recall@5"] == recall
    assert done.stderr == "keyword: every answer is among the first 5 passages\n"


def test_evaluate_names_documents_that_the_collection_lacks(stack: Stack, collection: str, tmp_path: Path) -> None:
    path = write_questions(tmp_path, {"question": "x", "document": "other.pdf"}, {"question": "y", "document": "boilers.txt"})
    done = run(stack, "evaluate", path, "-c", collection)
    assert done.returncode == 2
    assert done.stderr.strip() == "Collection 'tools' lacks 1 document of the questions: other.pdf."


def test_langchain_retrieves_passages_with_page_citations(stack: Stack, collection: str) -> None:
    async def retrieve_async() -> list[object]:
        async with AsyncClient(stack.url) as client:
            return list(await EnginehouseRetriever(async_client=client, collection=collection, top_k=1).ainvoke(QUERY))

    with Client(stack.url) as client:
        retriever = EnginehouseRetriever(client=client, collection=collection, top_k=1, mode="keyword", neighbours=1)
        [found] = retriever.invoke(QUERY)
        [threaded] = asyncio.run(retriever.ainvoke(QUERY))
    assert found.page_content == "A blocked valve XK-4711 must be replaced at once."
    cited = {name: found.metadata[name] for name in ("source", "page", "citation", "collection", "start", "end")}
    assert cited == {
        "source": "boilers.txt",
        "page": 2,
        "citation": "boilers.txt, page 2",
        "collection": collection,
        "start": 0,
        "end": len(found.page_content),
    }
    assert [neighbour["page"] for neighbour in found.metadata["neighbours"]] == [1]
    [awaited] = asyncio.run(retrieve_async())
    assert threaded == found
    assert getattr(awaited, "id", None) == found.id
    with pytest.raises(ValueError, match="needs a client"):
        EnginehouseRetriever(collection=collection)


def test_a_set_in_the_format_of_beir_is_indexed_and_measured(stack: Stack, tmp_path: Path) -> None:
    corpus = [
        {"_id": "a/1", "title": "Boilers", "text": "A boiler heats water."},
        {"_id": "b", "title": "", "text": "Hedges are cut."},
        {"_id": "c", "title": "Boiler valves", "text": "A valve lets steam out of a boiler."},
    ]
    queries = [{"_id": "1", "text": "boiler"}, {"_id": "2", "text": "hedges"}, {"_id": "3", "text": "not judged"}]
    source = tmp_path / "tiny"
    (source / "qrels").mkdir(parents=True)
    (source / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (source / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (source / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta/1\t2\n1\tc\t1\n2\ta/1\t1\n2\tb\t0\n")
    command = [sys.executable, "-m", "benchmarks.retrieval", "--public", str(source), "--url", stack.url]
    done = subprocess.run([*command, "--folder", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = {row["figure"]: row["value"] for row in rows if row["mode"] == "keyword"}
    assert (rows[0]["queries"], rows[0]["documents"], rows[0]["chunks"]) == (2, 3, 3)
    assert found["retrieval.recall@10"] == 0.5
    assert 0.4 < found["retrieval.ndcg@10"] <= 0.5
