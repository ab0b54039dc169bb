"""CSV files: the values stay in their columns, whatever separates and quotes them."""

import io

import pytest

from workers.cpu.readers.table import CsvReader

LATE = "id,remark,amount\n" + "".join(f'{n},"Plain remark number {n}",{n * 3}\n' for n in range(1, 420))


def read(text: str, codec: str = "utf-8") -> tuple[str, str]:
    page = CsvReader(io.BytesIO(text.encode(codec)), "").read_page(1)
    return page.text, page.fault


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n", "a: 1; b: 2"),
        ("sep=;\na;b\n1;2,5\n", "a: 1; b: 2,5"),
        ("Name;Wert\nA;1,5\nB;2,5\n", "Name: B; Wert: 2,5"),
        ('Produkt;Preis;Text\nD;12,00;"grau, lang, fest"\n', "Produkt: D; Preis: 12,00; Text: grau, lang, fest"),
        ("a\tb\nx, y\tz; w\n", "a: x, y; b: z; w"),
        ("a|b|c\nx,1|y|z\n", "a: x,1; b: y; c: z"),
        ("a,b\r1,2\r3,4\r", "a: 3; b: 4"),
        ('id,text,n\n1,"He said ""hi, you"", ok",3\n2,"x",4\n', 'id: 1; text: He said "hi, you", ok; n: 3'),
        ('id,text,n\n1,"He said \\"hi, you\\", ok",3\n2,"x",4\n', 'id: 1; text: He said "hi, you", ok; n: 3'),
        ('id,path,n\n1,"C:\\dir\\",3\n2,"D:\\x\\",4\n', "id: 2; path: D:\\x\\; n: 4"),
        ('id,text\n1,5" pipe\n2,6" pipe\n', 'id: 1; text: 5" pipe'),
        ('id,text,n\n1,"line one\nline two",3\n2,b,4\n', "id: 1; text: line one line two; n: 3"),
        ("'a','b'\n'x, y','2'\n", "a: x, y; b: 2"),
        ('a, b, c\n1, "x, y", 3\n', "a: 1; b: x, y; c: 3"),
        ("name,city\nAda,London\n\nGrace,Paris\n", "name: Grace; city: Paris"),
        ("Report of May\n\nid,name,n\n1,Ada,3\n2,Bob,4\n", "id: 2; name: Bob; n: 4"),
        ("Region,2022,2023\nNorth,11,12\nSouth,21,22\n", "Region: South; 2022: 21; 2023: 22"),
        (",city,population\n0,Lisbon,545000\n1,Porto,231000\n", "city: Porto; population: 231000"),
        ("remark\nHello, world\nNo comma here\nOne, two, three\nMore\n", "One, two, three"),
        (LATE + '420,"The ""north, south"" gate",999\n', 'id: 420; remark: The "north, south" gate; amount: 999'),
        (",".join(f"c{n}" for n in range(200)) + "\n" + ",".join(f"v{n}" for n in range(200)) + "\n", "c199: v199"),
    ],
)
def test_values_stay_in_their_columns(text: str, line: str) -> None:
    got, fault = read(text)
    assert line in got
    assert fault == ""


def test_a_quotation_mark_that_is_never_closed_takes_one_line_only() -> None:
    got, fault = read('id,text\n1,ok\n2,"5 inch pipe\n3,fine\n4,last\n')
    assert 'id: 2; text: "5 inch pipe\nid: 3; text: fine\n' in got
    assert "never closed" in fault


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig", "cp1252"])
def test_files_of_excel_are_decoded(codec: str) -> None:
    assert "Name: Zoë; City: Århus" in read("Name\tCity\r\nJürgen\tKöln\r\nZoë\tÅrhus\r\n", codec)[0]


def test_an_empty_file_has_no_rows() -> None:
    assert read("") == ("", "")
