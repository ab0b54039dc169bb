"""OCR: pictures and scanned pages are read in the sandbox, each page once, and what takes too long is reported."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from shared.errors import DocumentRejected
from testing.missing_services import missing_service
from tests.odd_files import pdf
from tests.scans import ScannedDocument, draw_text, encode, scanned_pdf
from workers.cpu.ocr.installation import EngineMissing, find_paddle_models, find_problems, find_tesseract_data
from workers.cpu.ocr.layout import compose_text
from workers.cpu.ocr.paddle import PaddleEngine
from workers.cpu.ocr.recognizer import OCR_FAULT
from workers.cpu.ocr.tesseract import TesseractEngine
from workers.runtime.attempt import AttemptStopped

SENTENCE = "Boilers are inspected in May."


@pytest.fixture(scope="module")
def engine() -> PaddleEngine:
    return PaddleEngine()


@pytest.mark.parametrize("turn", [0, 90, 180, 270, 2])
def test_a_turned_picture_is_read_in_order(engine: PaddleEngine, turn: int) -> None:
    import numpy as np

    picture = draw_text(SENTENCE, "The valve opens at 4.5 bar.").rotate(turn, expand=True, fillcolor="white")
    found = compose_text(engine.read_lines(np.asarray(picture)))
    assert found.text == f"{SENTENCE}\nThe valve opens at 4.5 bar."
    assert 0.9 < found.confidence <= 1


@pytest.mark.parametrize("turn", [0, 180])
def test_the_direction_of_long_lines_is_certain(engine: PaddleEngine, turn: int) -> None:
    import numpy as np

    long = "Never use the machine without water: the heating element would burn out. Close the main valve, wait for five minutes."
    picture = draw_text(long, long[::-1], width=1800, size=26).rotate(turn)
    pixels = np.ascontiguousarray(np.asarray(picture))
    assert engine._is_upside_down(pixels, engine._detect(pixels)) is (turn == 180)


def test_the_models_are_inside_the_package() -> None:
    assert {path.suffix for path in find_paddle_models().glob("PP-OCRv6*")} == {".onnx"}


def test_a_tiff_has_pages_and_a_photo_is_turned_by_its_exif_tag(tmp_path: Path) -> None:
    tiff = encode(draw_text("First page."), "TIFF", save_all=True, append_images=[draw_text("Second page.").convert("1")])
    document = ScannedDocument(tmp_path / "tiff", tiff)
    assert [page.text for page in document.read()] == ["First page.", "Second page."]
    assert document.progress == [(0, 2), (1, 2), (2, 2)]
    assert all(page.confidence is not None and page.confidence > 0.9 for page in document.pages())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    [page] = ScannedDocument(tmp_path / "jpeg", encode(draw_text(SENTENCE).rotate(90, expand=True), "JPEG", exif=exif)).read()
    assert page.text == SENTENCE


def test_only_the_scanned_pages_of_a_pdf_are_read(tmp_path: Path) -> None:
    from pypdf import PdfWriter

    writer = PdfWriter()
    for number, data in enumerate((pdf("Typed."), scanned_pdf("Scanned."))):
        (tmp_path / f"{number}.pdf").write_bytes(data)
        writer.append(tmp_path / f"{number}.pdf")
    writer.write(tmp_path / "both.pdf")
    document = ScannedDocument(tmp_path, (tmp_path / "both.pdf").read_bytes())
    assert [(page.text.strip(), page.confidence is None) for page in document.read()] == [("Typed.", True), ("Scanned.", False)]
    assert document.progress[-1] == (1, 1)
    assert document.summary().problems == []
    assert not document.files.path(document.id, "ocr.jsonl").exists()


def test_a_text_pdf_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = ScannedDocument(tmp_path, pdf("Typed.", "Typed again."))
    monkeypatch.setattr(subprocess, "Popen", None)
    assert [page.text.strip() for page in document.read()] == ["Typed.", "Typed again."]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.scans import ScannedDocument, scanned_pdf

document = ScannedDocument(Path(sys.argv[1]), scanned_pdf("Page one.", "Page two.", "Page three."))
document.on_page = lambda: os.kill(os.getpid(), signal.SIGKILL) if len(document.progress) > 2 else None
document.read()
"""


def test_a_killed_worker_reads_no_page_twice(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    [folder] = (tmp_path / "documents").iterdir()
    document = ScannedDocument(tmp_path / "other", scanned_pdf("No page."))
    document.files, document.id = type(document.files)(tmp_path / "documents"), folder.name
    assert document.stored_numbers() == [1, 2]
    with (folder / "ocr.jsonl").open("ab") as file:
        file.write(b'0123456789abcdef {"number":3,"text":"cut')  # as if it had died in the middle of a line

    def stop() -> None:
        raise AttemptStopped("release")

    document.on_page = stop
    with pytest.raises(AttemptStopped):
        document.read()
    assert document.progress == [(2, 3), (3, 3)]
    assert document.stored_numbers() == [1, 2, 3]
    document.progress.clear()
    assert [page.text for page in document.read()] == ["Page one.", "Page two.", "Page three."]
    assert document.progress == []


def test_a_page_over_its_time_is_reported_and_only_it_is_read_again(tmp_path: Path) -> None:
    document = ScannedDocument(tmp_path, scanned_pdf("Slow page."))
    document.limits = replace(document.limits, page_seconds=0.001)
    start = time.monotonic()
    [page] = document.read()
    assert time.monotonic() - start < 60
    assert (page.text, page.fault) == ("", f"{OCR_FAULT} within 0.001 s (ENGINEHOUSE_OCR_PAGE_SECONDS)")
    with pytest.raises(DocumentRejected, match="OCR_PAGE_SECONDS") as rejected:
        document.summary()
    assert rejected.value.code == "failed"
    document.limits = replace(document.limits, page_seconds=120)
    [page] = document.read()
    assert (page.text, page.fault) == ("Slow page.", "")


def test_a_stop_kills_the_child_and_leaves_its_page_for_the_next_attempt(tmp_path: Path) -> None:
    document = ScannedDocument(tmp_path, scanned_pdf("Page one."))

    def stopped() -> None:
        raise AttemptStopped("cancel")

    document.check = stopped
    document.children.kill()
    with pytest.raises(AttemptStopped):
        document.read()
    assert not document.files.path(document.id, "ocr.jsonl").exists()
    assert document.pages()[0].confidence is None


def test_pictures_inside_pages_are_read_when_asked(tmp_path: Path) -> None:
    from fpdf import FPDF

    (tmp_path / "picture.png").write_bytes(encode(draw_text(SENTENCE), "PNG"))
    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=12)
    page.multi_cell(0, 8, "This report has a photo of a label. " * 8)
    page.image(str(tmp_path / "picture.png"), x=20, y=80, w=120)
    data = bytes(page.output())
    [plain] = ScannedDocument(tmp_path / "off", data).read()
    assert SENTENCE not in plain.text
    assert plain.confidence is None
    [read] = ScannedDocument(tmp_path / "on", data, images=True).read()
    assert read.text.startswith("This report")
    assert read.text[read.ocr_start :] == SENTENCE


def test_a_missing_engine_is_named() -> None:
    with pytest.raises(EngineMissing, match="Install the Debian package tesseract-ocr"):
        TesseractEngine((), library="libtesseract-is-not-here.so")
    assert find_problems("off", ()) == find_problems("rapidocr", ()) == []
    [problem] = find_problems("tesseract", ["tlh"])
    missing = "ENGINEHOUSE_OCR_LANGUAGES: Tesseract has no data for tlh"
    assert problem.startswith(("The OCR engine tesseract is not installed", missing))


@pytest.fixture(scope="module")
def tesseract_data() -> Path:
    """The folder of Tesseract's data for English."""
    if problems := find_problems("tesseract", ["eng"]):
        missing_service(problems[0])
    return find_tesseract_data(["eng"])


def test_tesseract_loads_the_languages_in_their_order(tmp_path: Path, tesseract_data: Path) -> None:
    for language in ("deu", "rus"):
        (tmp_path / f"{language}.traineddata").symlink_to(tesseract_data / "eng.traineddata")
    assert TesseractEngine(["deu", "rus"], data_folders=[tmp_path]).languages == ["deu", "rus"]


def test_a_language_without_data_is_refused_by_the_name_of_its_field(tmp_path: Path, tesseract_data: Path) -> None:
    document = ScannedDocument(tmp_path, encode(draw_text(SENTENCE), "PNG"), engine="tesseract")
    document.settings |= {"languages": ("eng", "tlh", "chi_sim"), "languages_named_by": "ocr_languages"}
    with pytest.raises(DocumentRejected) as rejected:
        document.read()
    assert rejected.value.message == (
        "ocr_languages: Tesseract has no data for tlh, chi_sim. Run `apt-get install tesseract-ocr-tlh tesseract-ocr-chi-sim`."
    )


def test_tesseract_reads_the_same_picture(tmp_path: Path, tesseract_data: Path) -> None:
    [page] = ScannedDocument(tmp_path, encode(draw_text(SENTENCE), "PNG"), engine="tesseract").read()
    assert page.text == SENTENCE
