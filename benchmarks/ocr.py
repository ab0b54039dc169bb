"""OCR compared: pages per second and character error rate on made pages of known text, for each engine that is installed.

Each page is a picture of an A4 page at 200 pixels per inch: clean, with noise and a little askew, turned, or in two columns, in Latin
letters, Greek, Chinese or Japanese. The error rate is the edit distance to the known text in reading order, over its length; space does not
count. Engines run one after the other in this process, on one thread and without the sandbox.

Run: ``.venv/bin/python -m benchmarks.ocr``. ``--pages 24`` makes fewer pages, and ``--seed`` others. Chinese and Japanese need a font, such as that of Debian's
package fonts-droid-fallback or the one that ``--font`` names; Tesseract needs the packages tesseract-ocr, those of
the languages in TESSERACT_LANGUAGES, or ``--tesseract LIBRARY DATA``.
"""

import argparse
import itertools
import json
import os
import platform
import random
import re
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.cpu.ocr.engines import use_one_thread
from workers.cpu.ocr.installation import TESSERACT_FOLDERS, TESSERACT_LIBRARY, EngineMissing

use_one_thread()

import numpy as np  # noqa: E402 - after the number of threads is set
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from workers.cpu.ocr.layout import RecognizedText  # noqa: E402

WIDTH, HEIGHT, MARGIN = 1654, 2339, 150
SEED = 20261128
MACHINE = f"{os.cpu_count()} cores, {platform.machine()}"

LATIN_FONTS = (
    "/usr/share/fonts/truetype/liberation/LiberationSerif-Regular.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf",
)
CJK_FONTS = (
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/usr/share/fonts-droid-fallback/truetype/DroidSansFallback.ttf",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
)

SENTENCES = {
    "latin": (
        "The boiler must be inspected every spring before it is filled.",
        "Die Prüfung der Kessel dauert höchstens zwei Stunden und ist gebührenfrei.",
        "Close the main valve, wait for five minutes, and open the drain slowly.",
        "Les pièces de rechange sont livrées en trois à cinq jours ouvrés.",
        "A pressure above 4.5 bar indicates that the safety valve is blocked.",
        "El depósito debe llenarse hasta la marca y cerrarse con cuidado.",
        "Customers who return the bicycle after 18:00 pay for another day.",
        "Große Räume brauchen mehr Wärme; kleine Öfen genügen dort selten.",
        "Article 12 (2) applies to contracts signed after 1 March 2024.",
        "Il serbatoio è fissato con quattro viti da 8 mm.",
        "Never use the machine without water: the heating element would burn out.",
        "The amount of EUR 1,249.50 is due within thirty days.",
    ),
    "greek": (
        "Ο λέβητας πρέπει να ελέγχεται κάθε άνοιξη πριν γεμίσει με νερό.",
        "Κλείστε την κύρια βαλβίδα, περιμένετε πέντε λεπτά και ανοίξτε αργά την αποχέτευση.",
        "Πίεση πάνω από 4,5 bar σημαίνει ότι η βαλβίδα ασφαλείας έχει φράξει.",
        "Τα ανταλλακτικά παραδίδονται σε τρεις έως πέντε εργάσιμες ημέρες.",
        "Μη χρησιμοποιείτε ποτέ το μηχάνημα χωρίς νερό: η αντίσταση θα καεί.",
        "Το ποσό των 1.249,50 ευρώ καταβάλλεται μέσα σε τριάντα ημέρες.",
        "Όποιος επιστρέφει το ποδήλατο μετά τις έξι πληρώνει ακόμη μία ημέρα.",
        "Η σύμβαση ισχύει για δύο χρόνια από την υπογραφή της.",
    ),
    "chinese": (
        "锅炉每年春季注水前必须进行检查。",
        "请关闭主阀门，等待五分钟，然后慢慢打开排水口。",
        "压力超过规定数值时，安全阀会自动打开。",
        "备件将在三到五个工作日内送达。",
        "客户在下午六点以后归还自行车，需要支付另外一天的费用。",
        "没有水的时候不要使用机器，否则加热元件会烧坏。",
        "合同自双方签字之日起生效，有效期为两年。",
        "本说明书适用于二〇二四年以后生产的产品。",
    ),
    "japanese": (
        "ボイラーは毎年春に点検しなければなりません。",
        "主弁を閉じて五分間待ち、ゆっくりと排水口を開けてください。",
        "圧力が高すぎる場合は、安全弁が自動的に開きます。",
        "交換部品は三日から五日以内に届きます。",
        "水を入れずに機械を使わないでください。",
        "契約は署名の日から二年間有効です。",
        "自転車を返すときは、受付で鍵を渡してください。",
        "この説明書は新しい製品だけに適用されます。",
    ),
}
TESSERACT_LANGUAGES = {
    "latin": ("eng", "deu", "fra", "spa", "ita"),
    "greek": ("ell",),
    "chinese": ("chi_sim",),
    "japanese": ("jpn",),
}
KINDS = (
    ("latin", "clean"),
    ("latin", "noise"),
    ("latin", "turned"),
    ("latin", "columns"),
    ("latin", "noisy columns"),
    ("chinese", "clean"),
    ("chinese", "noise"),
    ("chinese", "columns"),
    ("japanese", "clean"),
    ("japanese", "turned"),
    ("greek", "clean"),
    ("greek", "noise"),
)
CJK = ("chinese", "japanese")


@dataclass(frozen=True)
class MadePage:
    """A picture of known text."""

    script: str
    kind: str
    text: str
    image: Any


def make_page(number: int, cjk_font: str, seed: int = SEED) -> MadePage:
    """The page of this number, which is the same on every machine with the same fonts."""
    dice = random.Random(seed + number)
    script, kind = KINDS[number % len(KINDS)]
    font = ImageFont.truetype(cjk_font if script in CJK else dice.choice(LATIN_FONTS), dice.choice((28, 32, 36)))
    page = Image.new("L", (WIDTH, HEIGHT), 255)
    columns = 2 if "columns" in kind else 1
    gutter = 90
    width = (WIDTH - 2 * MARGIN - gutter * (columns - 1)) // columns
    lines: list[str] = []
    for column in range(columns):
        lines += _draw_column(page, MARGIN + column * (width + gutter), width, font, script, dice)
    if kind == "turned":
        page = page.rotate(dice.choice((90, 180, 270)), expand=True)
    if "nois" in kind:
        page = _spoil(page, dice)
    return MadePage(script, kind, "\n".join(lines), np.asarray(page.convert("RGB")))


def _draw_column(page: Any, left: int, width: int, font: Any, script: str, dice: random.Random) -> list[str]:
    """Draw paragraphs down to the bottom margin; returns the lines."""
    draw, lines, y = ImageDraw.Draw(page), list[str](), MARGIN
    pitch = int(font.size * 1.45)
    while y < HEIGHT - MARGIN - 8 * pitch:
        sentences = [dice.choice(SENTENCES[script]) for _ in range(4)]
        units = list("".join(sentences)) if script in CJK else " ".join(sentences).split(" ")
        glue, line = ("" if script in CJK else " "), ""
        for unit in [*units, ""]:
            longer = f"{line}{glue}{unit}" if line else unit
            if unit and draw.textlength(longer, font) <= width:
                line = longer
                continue
            draw.text((left, y), line, font=font, fill=0)
            lines.append(line)
            line, y = unit, y + pitch
        y += pitch // 2
    return lines


def _spoil(page: Any, dice: random.Random) -> Any:
    """A bad scan: a little askew, blurred, grey, with noise and specks."""
    page = page.rotate(dice.uniform(-1.5, 1.5), resample=Image.Resampling.BICUBIC, fillcolor=255)
    page = page.resize((WIDTH * 3 // 4, HEIGHT * 3 // 4)).resize((WIDTH, HEIGHT))
    noise = np.random.default_rng(dice.randrange(2**32))
    values = np.asarray(page).astype(np.float32) * 0.75 + 45 + noise.normal(0, 18, (HEIGHT, WIDTH))
    values[noise.random((HEIGHT, WIDTH)) < 0.002] = 0
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def error_rate(found: str, expected: str) -> float:
    """Edit distance over the length of what was expected, without white space."""
    a, b = (re.sub(r"\s+", "", text) for text in (expected, found))
    codes = np.array([ord(character) for character in b])
    steps = np.arange(len(b) + 1)
    row = steps.copy()
    for number, character in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(character)))
        # A cell may also continue from the left at a cost of one for each step.
        row = np.minimum.accumulate(np.concatenate([[number], best]) - steps) + steps
    return float(row[-1]) / max(1, len(a))


def engines(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[MadePage], RecognizedText]]]:
    """The engines that are installed, by name."""
    from workers.cpu.ocr.paddle import PaddleEngine
    from workers.cpu.ocr.tesseract import TesseractEngine

    if options.engine != "tesseract":
        paddle = PaddleEngine()
        yield "rapidocr", lambda page: paddle.read_text(page.image)
    if options.engine == "rapidocr":
        return
    library, folders = (
        (options.tesseract[0], [Path(options.tesseract[1])]) if options.tesseract else (TESSERACT_LIBRARY, TESSERACT_FOLDERS)
    )
    try:
        loaded = {script: TesseractEngine(names, library, folders) for script, names in TESSERACT_LANGUAGES.items()}
    except EngineMissing as error:
        print(json.dumps({"engine": "tesseract", "left_out": str(error)}), flush=True)
        return
    yield "tesseract", lambda page: loaded[page.script].read_text(page.image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED, help="of the texts, fonts and spoiled pages")
    parser.add_argument("--font", help="a font with Chinese and Japanese characters")
    parser.add_argument("--engine", choices=["rapidocr", "tesseract"], help="only this one")
    parser.add_argument("--tesseract", nargs=2, metavar=("LIBRARY", "DATA"), help="libtesseract.so.5 and the folder of its data")
    options = parser.parse_args()
    cjk_font = options.font or next((font for font in CJK_FONTS if Path(font).exists()), "")
    numbers = [number for number in range(options.pages) if cjk_font or KINDS[number % len(KINDS)][0] not in CJK]
    if not cjk_font:
        print(json.dumps({"left_out": "Chinese and Japanese: no font; install fonts-droid-fallback or give --font"}), flush=True)
    for name, read in engines(options):
        taken: dict[tuple[str, str], list[tuple[float, float, float, float]]] = defaultdict(list)
        for number in numbers:
            page = make_page(number, cjk_font, options.seed)
            wall, cpu = time.perf_counter(), time.process_time()
            result = read(page)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            taken[page.script, page.kind].append((wall, cpu, error_rate(result.text, page.text), result.confidence))
        for (script, kind), rows in [*taken.items(), (("all", "all"), list(itertools.chain(*taken.values())))]:
            wall, cpu, errors, confidence = (sum(column) / len(rows) for column in zip(*rows, strict=True))
            print(
                json.dumps(
                    {
                        "engine": name,
                        "script": script,
                        "kind": kind,
                        "pages": len(rows),
                        "pages_per_second": round(1 / wall, 3),
                        "cpu_seconds_per_page": round(cpu, 2),
                        "character_error_rate": round(errors, 4),
                        "confidence": round(confidence, 3),
                        "seed": options.seed,
                        "machine": MACHINE,
                    }
                ),
                flush=True,
            )
        print(
            json.dumps(
                {
                    "engine": name,
                    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                    "seed": options.seed,
                    "machine": MACHINE,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
