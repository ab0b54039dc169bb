"""E-mail."""

# ruff: noqa: RUF001 - other scripts, and the quotes of texts

import base64
from collections.abc import Iterator

from testing.reading_samples.package import Sample


def _mail(headers: str, body: str | bytes) -> bytes:
    start = f"From: ada@example.org\nTo: bob@example.org\nSubject: Boiler\nMIME-Version: 1.0\n{headers}\n\n".encode()
    return start + (body.encode() if isinstance(body, str) else body)


def _multipart(kind: str, *parts: str) -> bytes:
    body = "".join(f"--X\n{part}\n" for part in parts)
    return _mail(f'Content-Type: multipart/{kind}; boundary="X"', f"{body}--X--\n")


def mail_samples() -> Iterator[Sample]:
    plain, rich = (
        "Content-Type: text/plain; charset=utf-8\n\n{}",
        "Content-Type: text/html; charset=utf-8\n\n<html><body>{}</body></html>",
    )
    yield Sample("empty-plain.eml", lambda: _multipart("alternative", plain.format(" "), rich.format("<p>Invoice 90210.</p>")),
                 must=("Invoice 90210.",))  # fmt: skip
    yield Sample(
        "stub-plain.eml",
        lambda: _multipart(
            "alternative",
            plain.format("Your program cannot show HTML."),
            rich.format("<p>Line of the letter.</p>" * 30 + "The end."),
        ),
        must=("The end.",),
    )
    yield Sample("alternatives.eml", lambda: _multipart("alternative", plain.format("Dear Bob,"), rich.format("<p>Dear Bob,</p>")),
                 count={"Dear Bob,": 1})  # fmt: skip
    yield Sample("several.eml", lambda: _multipart("mixed", plain.format("First part."), plain.format("Second part.")),
                 must=("First part.", "Second part."))  # fmt: skip
    calendar = "BEGIN:VEVENT\nSUMMARY:Pressure test of\n  line three\nLOCATION:Hall B\\, left\nEND:VEVENT"
    yield Sample("invite.eml", lambda: _multipart("alternative", plain.format("Invited."), f"Content-Type: text/calendar\n\n{calendar}"),
                 must=("Invited.", "Pressure test of line three", "Hall B, left"))  # fmt: skip
    yield Sample(
        "forwarded.eml",
        lambda: _multipart(
            "mixed",
            plain.format("See below."),
            "Content-Type: message/rfc822\n\nFrom: cy@example.org\nSubject: Valve nine\n\nIt leaks.",
        ),
        must=("See below.", "Valve nine", "It leaks."),
    )
    yield Sample(
        "attached.eml",
        lambda: _multipart(
            "mixed",
            plain.format("See the files."),
            'Content-Type: application/pdf; name="a.pdf"\nContent-Disposition: attachment; filename="a.pdf"\n\nx',
            'Content-Type: text/html\nContent-Disposition: attachment; filename="b.html"\n\n<p>In the <b>page</b>.</p>',
        ),
        must=("See the files.", "In the page."),
        problem="a.pdf",
    )
    yield Sample("label.eml", lambda: _mail("Content-Type: text/plain; charset=iso-8859-1", b"It\x92s \x93final\x94: 250 \x80."),
                 must=("It’s “final”: 250 €.",))  # fmt: skip
    yield Sample("bad-byte.eml", lambda: _mail("Content-Type: text/plain; charset=utf-8", "Grüße aus München.".encode() + b" \xff\n"),
                 must=("Grüße aus München.",))  # fmt: skip
    yield Sample("unknown-label.eml", lambda: _mail("Content-Type: text/plain; charset=x-nothing", "Grüße aus München."),
                 must=("Grüße aus München.",))  # fmt: skip
    yield Sample(
        "raw-headers.eml", lambda: "From: a@b.c\nTo: d@e.f\nSubject: Grüße\n\nBody.".encode(), must=("Subject: Grüße", "Body.")
    )
    yield Sample(
        "no-boundary.eml", lambda: _mail("Content-Type: multipart/mixed", "The whole letter."), must=("The whole letter.",)
    )
    yield Sample("cut.eml", lambda: _multipart("mixed", plain.format("Before the cut."))[:-8], must=("Before the cut",))
    yield Sample(
        "base64.eml",
        lambda: _mail(
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64", base64.b64encode("Zoë".encode())
        ),
        must=("Zoë",),
    )
    yield Sample("afterwards.eml", lambda: _multipart("mixed", plain.format("The letter.")) + b"\nList: how to leave it.\n",
                 must=("The letter.", "how to leave it."))  # fmt: skip
    yield Sample(
        "rich.eml", lambda: _mail("Content-Type: text/rtf", "{\\rtf1\\ansi In {\\b rich} text.\\par}"), must=("In rich text.",)
    )
    yield Sample("wrong-label.eml", lambda: _mail("Content-Type: text/plain; charset=windows-1252", "Größe"), must=("Größe",))
    report = "Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\nFinal-Recipient: rfc822; bob@example.org"
    yield Sample("report.eml", lambda: _multipart("report", plain.format("Not delivered."), report),
                 must=("Not delivered.", "Final-Recipient: rfc822; bob@example.org"))  # fmt: skip
    encoded = base64.b64encode(b"Subject: Valve\nFrom: cy@example.org\n\nIt leaks.").decode()
    yield Sample(
        "forwarded-encoded.eml",
        lambda: _multipart("mixed", f"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{encoded}"),
        must=("Valve", "It leaks."),
    )
    yield Sample("japanese.eml", lambda: _mail("Content-Type: text/plain; charset=iso-2022-jp", "日本語".encode("iso2022_jp")),
                 must=("日本語",))  # fmt: skip
    yield Sample(
        "named-body.eml", lambda: _mail('Content-Type: text/plain; name="body.txt"', "All in one."), must=("All in one.",)
    )
    packed_rich = f'Content-Type: multipart/mixed; boundary="Y"\n\n--Y\n{rich.format("<p>Dear Bob,</p>")}\n--Y\n{{}}\n\nx\n--Y--'
    plan = 'Content-Type: application/pdf; name="plan.pdf"\nContent-Disposition: inline; filename="plan.pdf"'
    yield Sample(
        "attached-to-html.eml",
        lambda: _multipart("alternative", plain.format("Dear Bob,"), packed_rich.format(plan)),
        count={"Dear Bob,": 1},
        problem="plan.pdf",
    )
    yield Sample(
        "html-says-more.eml",
        lambda: _multipart("alternative", plain.format("Short."), rich.format("<p>Short.</p><p>Room is B7.</p>")),
        must=("Room is B7.",),
        count={"Short.": 1},
    )
    yield Sample(
        "browser-stub.eml",
        lambda: _multipart(
            "alternative",
            plain.format("View this message in a browser: https://example.org/view"),
            rich.format("<p>The pump runs dry.</p><p>Order a seal.</p>"),
        ),
        must=("The pump runs dry. Order a seal.",),
    )
    yield Sample(
        "both-say-something.eml",
        lambda: _multipart(
            "alternative",
            plain.format("Dear *Bob*,\nthe valve of line\nthree leaks.\nSee https://www.example.org/valve\n\n-- \nAda, Hall B"),
            rich.format(
                "<p>Dear <b>Bob</b>,</p><p>the valve of line three leaks.</p><p>See www.example.org/valve</p>"
                "<table><tr><td>Torque</td><td>47 Nm</td></tr></table>"
            ),
        ),
        must=("Ada, Hall B", "Torque | 47 Nm"),
        count={"Bob": 1, "leaks": 1, "www.": 1},
    )
    yield Sample(
        "wrapped-chinese.eml",
        lambda: _multipart(
            "alternative", plain.format("锅炉每周一检\n查一次。署名"), rich.format("<p>锅炉每周一检查一次。</p><p>压力四十。</p>")
        ),
        must=("署名", "压力四十。"),
        count={"锅炉": 1},
    )
    zhu = base64.b64encode("朱镕基".encode("gbk")).decode()
    subject = f"From: a@b.c\nTo: d@e.f\nTo: second@e.f\nReply-To: other@e.f\nSubject: =?gb2312?B?{zhu}?=\n\nBody."
    yield Sample("headers.eml", lambda: subject.encode(), must=("朱镕基", "second@e.f", "other@e.f"))
    for name, body, texts in (
        ("junk", "SGVsbG8g!!*d29y\nbGQgZW5k", "Hello world end"),
        ("pieces", "SGVsbG8=\nIHdvcmxkIGVuZA==", "Hello world end"),
        ("cut", "SGVsbG8gd29ybGQgZW5kL", "Hello world end"),
        ("footer", "SGVsbG8gd29ybGQ=\n\n--\nTo leave the list, write to x.\n", "Hello world -- To leave the list, write to x."),
    ):
        yield Sample(
            f"base64-{name}.eml",
            lambda body=body: _mail("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64", body),  # type: ignore[misc]
            must=(texts,),
        )
    letter = "--X\nContent-Type: text/plain\n\nThe letter.\n--X--\n"
    yield Sample(
        "before-the-parts.eml",
        lambda: _mail('Content-Type: multipart/mixed; boundary="X"', f"Read this first.\n{letter}"),
        must=("Read this first.", "The letter."),
    )
    yield Sample(
        "before-mime.eml",
        lambda: _mail('Content-Type: multipart/mixed; boundary="X"', f"This is a multi-part message in MIME format.\n{letter}"),
        must=("The letter.",),
        never=("MIME",),
    )
    event = 'BEGIN:VEVENT\nSUMMARY:Test\nATTENDEE;CN="Byron: Ada":mailto:ada@x.y\nCOMMENT:Bring a pen\nEND:VEVENT'
    yield Sample("attendees.eml", lambda: _mail("Content-Type: text/calendar", event),
                 must=("Attendee: Byron: Ada <ada@x.y>", "Bring a pen"))  # fmt: skip
