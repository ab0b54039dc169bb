"""Texts in any encoding keep their letters, and what cannot be decoded is reported."""

# ruff: noqa: RUF001 - quotation marks and letters of other scripts look like those of ASCII
import io
import time

import pytest

from shared.documents.text_encoding import decode_labelled, decode_text, detect_unicode
from testing.encoding_samples import EncodedSample, encoded_samples
from workers.cpu.readers.structured import JsonLinesReader, JsonReader
from workers.cpu.readers.text import MarkdownReader, TextReader

GERMAN = "Grüße aus München, schöne Größe. "
CHINESE = "会议在三点。\n请带合同。\n"
RUSSIAN = "Привет мир\n"


@pytest.mark.parametrize(
    "sample", [*encoded_samples("letter", "line", "table")], ids=lambda s: f"{s.language}-{s.codec}-{s.shape}"
)
def test_a_text_in_a_legacy_encoding_keeps_its_letters(sample: EncodedSample) -> None:
    decoded = decode_text(sample.data)
    assert decoded is not None
    assert (decoded.text, decoded.replaced) == (sample.text, 0)


@pytest.mark.parametrize("sample", [*encoded_samples("letter")], ids=lambda s: f"{s.language}-{s.codec}")
def test_the_encoding_is_found_wherever_the_letters_are(sample: EncodedSample) -> None:
    late = EncodedSample(sample.language, sample.codec, "late", "number;text;amount\n" * 5000 + sample.text)
    long = EncodedSample(sample.language, sample.codec, "long", sample.text * 200)
    one_line = EncodedSample(sample.language, sample.codec, "one line", sample.text.replace("\n", "") * 200)
    for text in (late, long, one_line):
        decoded = decode_text(text.data)
        assert decoded is not None
        assert decoded.text == text.text, text.shape


WORDS = {
    "cp1252": "Müller|Zürich|café|Ångström|10 °C|50 €|“quoted”|It’s late.|naïve façade|Jürgen;Köln|2 µm ± 0,5|© 2020|§ 5 Abs. 3|"
    "Straße 5|crème brûlée|à la carte|più|ÄÖÜ|é|ß|ÉCOLE|¿Qué?|não|l’œuvre",
    "cp1250": "Zażółć gęślą jaźń.|Příliš žluťoučký kůň|Gdańsk;Poznań;Wrocław",
    "cp1251": "Привет|Москва|Иванов;Москва",
    "cp932": "東京|会議室|名前,住所|カタカナ",
    "gb18030": "合同|北京|你好，世界",
    "big5": "台北|合約|王小明,台北",
    "cp949": "서울|회의록|안녕하세요.",
    "cp1253": "Αθήνα",
    "cp1255": "שלום",
    "cp1256": "مرحبا",
    "cp874": "กรุงเทพ",
}


@pytest.mark.parametrize(("codec", "word"), [(codec, word) for codec, words in WORDS.items() for word in words.split("|")])
def test_a_word_alone_keeps_its_letters(codec: str, word: str) -> None:
    decoded = decode_text(f"{word}\n".encode(codec))
    assert decoded is not None
    assert decoded.text == f"{word}\n"


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("text", [GERMAN, CHINESE, RUSSIAN])
def test_unicode_is_recognised_with_and_without_a_mark(codec: str, text: str) -> None:
    decoded = decode_text(text.encode(codec))
    assert decoded is not None
    assert decoded.text.lstrip("\ufeff") == text


@pytest.mark.parametrize(
    ("data", "text", "replaced"),
    [
        (GERMAN.encode() + b"\xe9 and on", GERMAN + "\ufffd and on", 1),
        (GERMAN.encode() + "ü".encode()[:1], GERMAN + "\ufffd", 1),
        (b"\xef\xbb\xbf" + GERMAN.encode() + b"\xff", GERMAN + "\ufffd", 1),
        (b"\xff\xfe" + GERMAN.encode("utf-16-le") + b"x", GERMAN + "\ufffd", 1),
        ("5 €".encode()[:-1], "5 \ufffd", 1),
        ("회의는 세 시입니다.".encode("cp949")[:-2], "회의는 세 시입니\ufffd", 1),
        (GERMAN.encode() + bytes(4096), GERMAN, 0),
        (b"from DOS\r\n\x1a", "from DOS\r\n\x1a", 0),
    ],
)
def test_damage_costs_only_the_damaged_characters(data: bytes, text: str, replaced: int) -> None:
    decoded = decode_text(data)
    assert decoded is not None
    assert (decoded.text.lstrip("\ufeff"), decoded.replaced) == (text, replaced)


def test_what_was_replaced_is_reported() -> None:
    for reader in (TextReader, MarkdownReader, JsonReader, JsonLinesReader):
        page = reader(io.BytesIO(GERMAN.encode() + b"\xe9"), "").read_page(1)
        assert "Grüße aus München" in page.text
        assert page.fault.startswith("has 1 damaged characters"), reader


@pytest.mark.parametrize("data", [bytes(range(256)), b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xfeodd", b"8=FIX.4.2\x019=178\x01"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    assert decode_text(data) is None


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("iso-8859-1", "250 €, it’s".encode("cp1252"), "250 €, it’s"),
        ("us-ascii", "it’s".encode("cp1252"), "it’s"),
        ("gb2312", "朱镕基".encode("gbk"), "朱镕基"),
        ("x-sjis", "①髙".encode("cp932"), "①髙"),
        ("ks_c_5601-1987", "똠방".encode("cp949"), "똠방"),
        ("utf-8", "Größe".encode("cp1252"), "Größe"),
        ("windows-1252", GERMAN.encode(), GERMAN),
        ("windows-874", "กรุงเทพ".encode("cp874"), "กรุงเทพ"),
        ("base64", b"hello", "hello"),
        ("unicode_escape", GERMAN.encode(), GERMAN),
        ("windows-31j", "①髙橋".encode("cp932"), "①髙橋"),
        ("ansi", "250 €".encode("cp1252"), "250 €"),
        ("koi8-ru", RUSSIAN.encode("koi8-u"), RUSSIAN),
        ("iso-2022-jp", "日本語".encode("iso2022_jp"), "日本語"),
        ("utf-16", b"<p>Plain.</p>", "<p>Plain.</p>"),
        ("utf-16", GERMAN.encode("utf-16-le"), GERMAN),
        ("no such label", "Größe".encode(), "Größe"),
    ],
)
def test_a_label_means_what_it_means_on_the_web(label: str, data: bytes, text: str) -> None:
    decoded = decode_labelled(data, label)
    assert decoded is not None
    assert decoded.text == text


def test_terminal_codes_and_overprinting_are_not_text() -> None:
    text = TextReader(io.BytesIO(b"\x1b[31mError\x1b[0m: N\bNA\bAM\bME\bE\n"), "").read_page(1).text
    assert text == "Error: NAME\n"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b"])
def test_only_a_newline_ends_a_line_of_json(separator: str) -> None:
    strict = separator if separator != "\x0b" else "\\u000b"
    data = f'{{"text": "one{strict}two", "code": "K-17"}}\n{{"code": "K-18"}}\n'.encode()
    page = JsonLinesReader(io.BytesIO(data), "").read_page(1)
    assert "code: K-17" in page.text
    assert "code: K-18" in page.text
    assert page.fault == ""


def test_a_key_that_is_repeated_keeps_all_its_values() -> None:
    assert JsonReader(io.BytesIO(b'{"a": 1, "a": {"b": 2}}'), "").read_page(1).text == "a: 1\na.b: 2\n"


def test_numbers_of_json_keep_their_digits() -> None:
    data = b'{"a": 1.10, "b": [12345678901234567890.5, 1e400, NaN], "c": true, "d": null}'
    text = "a: 1.10\nb[0]: 12345678901234567890.5\nb[1]: 1e400\nb[2]: NaN\nc: true\nd: null\n"
    assert JsonReader(io.BytesIO(data), "").read_page(1).text == text


def test_names_without_a_value_are_kept() -> None:
    text = JsonReader(io.BytesIO(b'{"Berlin": {}, "tags": [], "remark": "", "n": 1}'), "").read_page(1).text
    assert text == "Berlin:\ntags:\nremark:\nn: 1\n"


def test_json_lines_named_json_are_read_as_such() -> None:
    assert JsonReader(io.BytesIO(b'{"a": 1}\n{"a": 2}\n'), "").read_page(1).text == "a: 1\n\na: 2\n\n"


HOSTILE = {
    "all high": bytes(range(128, 256)) * 40_000,
    "bad UTF-8": b"\xff\n" * 2_500_000,
    "half UTF-8": "ü\n".encode() * 1_000_000 + b"\xff\n" * 1_000_000,
    "letters between spaces": b" \xe4" * 2_500_000,
    "escapes": b"\x1b$B" * 1_600_000,
    "wide zeros": b"a\0" * 2_500_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_decoding_takes_linear_time(name: str) -> None:
    start = time.thread_time()
    decode_text(HOSTILE[name])
    assert time.thread_time() - start < 3


def test_detection_ends_in_the_middle_of_a_character() -> None:
    for text, codec in ((GERMAN, "utf-8"), (CHINESE, "utf-8"), (GERMAN, "utf-16-le")):
        data = (text * 50).encode(codec)
        assert {detect_unicode(data[:length], whole=False) for length in range(200, 220)} == {codec}
