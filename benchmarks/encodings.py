"""How many texts in legacy encodings keep all their letters, by the way their encoding is found, and how long that takes.

    .venv/bin/python -m benchmarks.encodings

prints one JSON line per way: the texts decoded without a wrong letter among all of each shape, and milliseconds per text.
"""

import json
import time
from collections import Counter
from collections.abc import Callable

from shared.documents.text_encoding import decode_text
from testing.encoding_samples import COMMON_CODECS, EncodedSample, encoded_samples

GERMAN = "Grüße aus München, schöne Größe. " * 3


def damaged_samples() -> list[tuple[str, bytes, str]]:
    """Unicode that is damaged or unmarked: what it is, its bytes, and a text that must be in it."""
    return [
        ("a bad byte", GERMAN.encode() + b"\xe9 and more", GERMAN),
        ("a last character that is cut", GERMAN.encode() + "ü".encode()[:1], GERMAN),
        ("a mark and a bad byte", b"\xef\xbb\xbf" + GERMAN.encode() + b"\xff", GERMAN),
        ("UTF-16 without a mark", GERMAN.encode("utf-16-le"), GERMAN),
        ("Chinese UTF-16 without a mark", "会议在三点。\n请带合同。\n".encode("utf-16-be"), "请带合同"),
        ("Korean with a cut character", "회의는 세 시입니다.".encode("cp949")[:-2], "회의는 세 시입니"),
    ]


def by_charset_normalizer(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return data.decode(best.encoding, "replace") if best is not None else ""


def by_chardet(data: bytes) -> str:
    import chardet

    encoding = chardet.detect(data, prefer_superset=True, compat_names=False)["encoding"]
    return data.decode(encoding, "replace") if encoding else ""


def by_unicode_first(data: bytes) -> str:
    decoded = decode_text(data)
    return decoded.text if decoded is not None else ""


def measure(name: str, decode: Callable[[bytes], str]) -> None:
    samples: list[EncodedSample] = list(encoded_samples("letter", "line", "table"))
    right, total = Counter[str](), Counter[str]()
    decode(b"warm up \xe4")
    start = time.process_time()
    for sample in samples:
        kind = "common encodings" if sample.codec in COMMON_CODECS else "rare encodings"
        for key in (sample.shape, kind):
            total[key] += 1
            right[key] += decode(sample.data) == sample.text
    seconds = time.process_time() - start
    for _, data, text in damaged_samples():
        total["damaged or unmarked Unicode"] += 1
        right["damaged or unmarked Unicode"] += text in decode(data)
    figures = {key: f"{right[key]}/{total[key]}" for key in total}
    print(json.dumps({"way": name, **figures, "ms_per_text": round(seconds * 1000 / len(samples), 2)}), flush=True)


def main() -> None:
    measure("charset-normalizer", by_charset_normalizer)
    measure("chardet", by_chardet)
    measure("Unicode first, then chardet held to plausible words", by_unicode_first)
    large = ("number;text;amount\n" * 1000 + GERMAN + "\n") * 5000
    for name, data in (
        ("UTF-8", large.encode()),
        ("Windows-1252", large.encode("cp1252")),
        ("bad bytes only", b"\xff\n" * 50_000_000),
    ):
        start = time.process_time()
        decoded = decode_text(data)
        seconds = round(time.process_time() - start, 2)
        print(
            json.dumps({"file": f"{len(data) // 10**6} MB of {name}", "codec": decoded and decoded.codec, "seconds": seconds}),
            flush=True,
        )


if __name__ == "__main__":
    main()
