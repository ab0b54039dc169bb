"""Files and pages of documents: the original, pictures of pages, and where a passage is on its page."""

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from testing.stack import Stack
from tests.flows.test_documents import settled, upload
from tests.odd_files import locked_pdf, pdf

HARBOUR = "The harbour opens at six.\nThe lighthouse is painted green.\nBoats sail at noon."


@pytest.fixture(scope="module")
def paper(stack: Stack) -> dict[str, Any]:
    """A PDF of two pages that is ready."""
    [document] = upload(stack, "drawn", ("papers/harbour.pdf", pdf("A cover page.", HARBOUR)))
    return settled(stack, document)


def error(answer: Any) -> tuple[int, str, str | None]:
    body = answer.json()["error"]
    return answer.status_code, body["code"], body["param"]


def cached(stack: Stack, document: dict[str, Any]) -> list[Path]:
    return sorted(stack.data.glob(f"documents/{document['id']}/page-drawings/*"))


def test_the_original_is_downloaded_as_an_attachment(stack: Stack, paper: dict[str, Any]) -> None:
    path = f"/documents/{paper['id']}/file"
    answer = stack.client.get(path)
    assert len(answer.content) == paper["size"]
    assert answer.content.startswith(b"%PDF-")
    headers = answer.headers
    assert headers["Content-Disposition"] == "attachment; filename=harbour.pdf"
    assert headers["Content-Type"] == "application/pdf"
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    part = stack.client.get(path, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, answer.content[5:10])
    assert stack.client.get(path, headers={"If-None-Match": headers["ETag"]}).status_code == 304
    assert error(stack.client.get(path, headers={"Range": "bytes=99999999-"}))[0] == 416


def test_a_file_that_a_browser_would_run_is_only_saved(stack: Stack) -> None:
    name = "a\u202etxt.evil\r\nX-Evil: 1.html"
    [document] = upload(stack, "drawn", (name, b"<html><script>alert(1)</script>Words of a page.</html>"))
    settled(stack, document)
    headers = stack.client.get(f"/documents/{document['id']}/file").headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment; filename")
    assert "X-Evil" not in headers
    assert "%E2%80%AE" not in headers["Content-Disposition"]


def test_a_passage_is_marked_on_the_picture_of_its_page(stack: Stack, paper: dict[str, Any]) -> None:
    [hit] = stack.post("/collections/drawn/search", {"query": "Which lighthouse is painted?", "filter": {"page": 2}}).json()[
        "data"
    ][:1]
    text = stack.client.get(f"/documents/{paper['id']}/pages/2/text").json()
    assert text["text"][hit["start"] : hit["end"]] == hit["text"]
    sentence = "The lighthouse is painted green."
    start = text["text"].index(sentence)
    span = {"start": start, "end": start + len(sentence)}
    [box] = stack.client.get(f"/documents/{paper['id']}/pages/2/text", params=span).json()["boxes"]
    assert text["text"][box["start"] : box["end"]] == sentence
    plain, marked = (
        stack.client.get(f"/documents/{paper['id']}/pages/2.png", params={"width": 600, **options}) for options in ({}, span)
    )
    assert plain.headers["Content-Type"] == "image/png"
    image = Image.open(io.BytesIO(plain.content)).convert("L")
    assert image.width == 600
    assert abs(image.height / image.width - text["height"] / text["width"]) < 0.01
    area = (
        box["x"] * image.width,
        box["y"] * image.height,
        (box["x"] + box["width"]) * image.width,
        (box["y"] + box["height"]) * image.height,
    )
    words = image.crop(tuple(round(each) for each in area))
    assert min(words.tobytes()) < 100, "the box covers the words"
    assert plain.content != marked.content
    assert len(text["boxes"]) == 3
    assert "draw" not in {job["kind"] for job in stack.client.get("/jobs?limit=100").json()["data"]}, "looking leaves no jobs"


def test_the_chunks_of_a_page_are_listed(stack: Stack, paper: dict[str, Any]) -> None:
    path = f"/documents/{paper['id']}/chunks"
    assert [chunk["page"] for chunk in stack.client.get(path).json()["data"]] == [1, 2]
    assert [chunk["page"] for chunk in stack.client.get(path, params={"page": 2}).json()["data"]] == [2]
    assert stack.client.get(path, params={"page": 3}).json()["data"] == []
    assert error(stack.client.get(path, params={"page": 0})) == (422, "invalid_value", "page")


def test_a_page_is_drawn_once(stack: Stack) -> None:
    [document] = upload(stack, "drawn", ("once.pdf", pdf("Drawn once.")))
    settled(stack, document)
    path = f"/documents/{document['id']}/pages/1.png"
    assert cached(stack, document) == []
    first = stack.client.get(path)
    assert first.status_code == 200
    files = cached(stack, document)
    assert {file.suffix for file in files} == {".json", ".png"}
    [picture] = [file for file in files if file.suffix == ".png"]
    picture.write_bytes(b"from the cache")
    assert stack.client.get(path).content == b"from the cache"
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    stack.client.delete(f"/documents/{document['id']}")
    for suffix in (".png", "/text"):
        assert stack.client.get(f"/documents/{document['id']}/pages/1{suffix}").status_code == 404, "it is hidden"
    stack.client.post(f"/documents/{document['id']}/restore")
    assert stack.client.get(path).content == b"from the cache"
    stack.client.delete(f"/documents/{document['id']}?permanent=true")
    assert cached(stack, document) == []


def test_text_has_pages_without_pictures(stack: Stack) -> None:
    [document] = upload(stack, "drawn", ("boats.txt", b"Boats sail at noon.\fThe harbour is near."))
    settled(stack, document)
    path = f"/documents/{document['id']}/pages"
    text = stack.client.get(f"{path}/2/text").json()
    assert (text["text"], text["boxes"], text["width"]) == ("The harbour is near.", [], None)
    assert error(stack.client.get(f"{path}/1.png")) == (404, "no_page_images", "document")
    assert error(stack.client.get(f"{path}/3/text")) == (404, "page_not_found", "page")


def test_a_document_with_a_password_has_text_but_no_picture(stack: Stack) -> None:
    form = {"file": ("locked.pdf", locked_pdf("sesame"))}
    uploaded = stack.client.post("/collections/drawn/documents", files=form, data={"password": "sesame"}).json()["data"][0]
    assert settled(stack, uploaded)["status"] == "ready"
    path = f"/documents/{uploaded['id']}/pages/1"
    assert error(stack.client.get(f"{path}.png")) == (409, "encrypted", None)
    text = stack.client.get(f"{path}/text").json()
    assert (text["text"].strip(), text["boxes"]) == ("Secret words.", [])
    assert stack.client.get(f"/documents/{uploaded['id']}/file").content == form["file"][1]


def test_an_original_that_was_dropped_is_reported(stack: Stack) -> None:
    [document] = upload(stack, "drawn", ("dropped.pdf", pdf("Soon without a file.")))
    settled(stack, document)
    (stack.data / "documents" / document["id"] / "original").unlink()
    assert error(stack.client.get(f"/documents/{document['id']}/file")) == (404, "original_deleted", "document")
    assert error(stack.client.get(f"/documents/{document['id']}/pages/1.png")) == (404, "original_deleted", None)
    assert stack.client.get(f"/documents/{document['id']}/pages/1/text").json()["boxes"] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pages/0.png", (404, "page_not_found", "page")),
        ("pages/3.png", (404, "page_not_found", "page")),
        ("pages/-1.png", (404, "page_not_found", "page")),
        ("pages/1e3.png", (404, "page_not_found", "page")),
        ("pages/99999999999999999999.png", (404, "page_not_found", "page")),
        ("pages/%2e%2e%2foriginal.png", (404, "route_not_found", None)),
        ("pages/٢.png", (404, "page_not_found", "page")),
        ("pages/2.png?width=63", (422, "invalid_value", "width")),
        ("pages/2.png?width=2001", (422, "invalid_value", "width")),
        ("pages/2.png?width=1e9", (422, "invalid_value", "width")),
        ("pages/2.png?start=3", (422, "invalid_value", "end")),
        ("pages/2.png?end=3", (422, "invalid_value", "start")),
        ("pages/2/text?start=9&end=3", (422, "invalid_value", "end")),
        ("pages/2/text?start=-1&end=3", (422, "invalid_value", "start")),
        ("pages/2/text?start=0&end=1000000000000", (422, "invalid_value", "end")),
    ],
)
def test_hostile_pages_widths_and_ranges_are_refused(
    stack: Stack, paper: dict[str, Any], path: str, expected: tuple[int, str, str | None]
) -> None:
    assert error(stack.client.get(f"/documents/{paper['id']}/{path}")) == expected


def test_a_range_beyond_the_text_marks_nothing(stack: Stack, paper: dict[str, Any]) -> None:
    options = {"start": 90_000_000, "end": 100_000_000}
    path = f"/documents/{paper['id']}/pages/2"
    assert stack.client.get(f"{path}/text", params=options).json()["boxes"] == []
    picture = stack.client.get(f"{path}.png", params={"width": 64, **options})
    assert struct.unpack(">I", picture.content[16:20])[0] == 64
