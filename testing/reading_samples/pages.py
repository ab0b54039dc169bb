"""Web pages and RTF files."""

# ruff: noqa: RUF001 - other scripts, and the quotes of texts

from collections.abc import Callable, Iterator

from testing.reading_samples.package import Sample


def page_samples() -> Iterator[Sample]:
    def page(body: str, head: str = "") -> Callable[[], bytes]:
        return lambda: f"<!doctype html><html><head><meta charset=utf-8>{head}</head><body>{body}</body></html>".encode()

    yield Sample(
        "buttons.html", page("<h2><button>Who pays?</button></h2><div>The guest.</div>"), must=("Who pays?", "The guest.")
    )
    yield Sample("no-html.html", lambda: b"<title>T</title><script>var tracker=1</script><h1>Rules</h1><p>ten &amp; end",
                 must=("Rules", "ten & end"), never=("tracker", "<h1>"))  # fmt: skip
    yield Sample("no-tags.html", lambda: b"Just text &amp; nothing else", must=("Just text & nothing else",))
    yield Sample(
        "math.html", page("<p>Area <math><msup><mi>A</mi><mn>2</mn></msup><mo>=</mo><mn>42</mn></math> m</p>"), must=("A^2=42 m",)
    )
    yield Sample(
        "form.html",
        page(
            "<select><option>Express<option>Slow</select><textarea>Note</textarea><input value='Hall B'><input type=hidden value=no>"
        ),
        must=("Express Slow", "Note", "Hall B"),
        never=("no ",),
    )
    yield Sample("noscript.html", page("<noscript>Phone 555-0100.</noscript>"), must=("Phone 555-0100.",))
    yield Sample("references.html", page("It&#146;s &#147;final&#148; &#128;250"), must=("It’s “final” €250",))
    yield Sample("power.html", page("<p>10<sup>6</sup> cells of H<sub>2</sub>O</p>"), must=("10^6 cells of H2O",))
    yield Sample("ruby.html", page("<p><ruby>漢字<rt>kanji</rt></ruby></p>"), must=("漢字(kanji)",))
    yield Sample("cells.html", page("<table><tr><td>One</td><td>two<br>three</td></tr></table>"), never=("Onetwo", "twothree"))
    yield Sample("soft-hyphen.html", page("<p>Donau&shy;dampf&shy;schiff</p>"), must=("Donaudampfschiff",))
    yield Sample(
        "details.html", page("<details><summary>More</summary>Hidden text.</details><p hidden>Unseen</p>"), must=("Hidden text.",)
    )
    yield Sample("nav.html", page("<nav>Home</nav><p>Text.</p>"), must=("Text.",), problem="navigation")
    yield Sample("alt.html", page("<p>See <img src=x alt='a red valve'>.</p>"), must=("a red valve",), problem="images")
    yield Sample("svg.html", page("<svg><title>t</title><text>Label in a drawing</text></svg>"), must=("Label in a drawing",))
    yield Sample(
        "no-body.html", lambda: b"<html><head><title>T</title><main><p>Main text.</p></main></html>", must=("Main text.",)
    )
    for label, text, codec in (
        ("iso-8859-1", "It’s 250 €", "cp1252"),
        ("gb2312", "朱镕基总理", "gbk"),
        ("shift_jis", "①髙橋", "cp932"),
        ("utf-8", "Größe der Straße", "cp1252"),
        ("windows-1251", "Съешь ещё", "cp1251"),
        ("ks_c_5601-1987", "똠방각하", "cp949"),
    ):
        yield Sample(
            f"label-{label}.html",
            lambda label=label, text=text, codec=codec: f"<html><meta charset={label}><p>{text}</p></html>".encode(codec),  # type: ignore[misc]
            must=(text,),
        )
    yield Sample("wrong-label.html", lambda: "<html><meta charset=windows-1252><p>Größe</p></html>".encode(), must=("Größe",))
    yield Sample("elements.html", page("<my-card>One</my-card><my-card>two</my-card>"), must=("One two",))
    yield Sample(
        "late-label.html",
        lambda: f"<html><head>{'<!-- filler -->' * 900}<meta charset=windows-1251></head><p>мягких булок</p></html>".encode(
            "cp1251"
        ),
        must=("мягких булок",),
    )
    yield Sample(
        "commented-label.html", lambda: "<html><!-- <meta charset=koi8-r> --><p>Größe</p></html>".encode(), must=("Größe",)
    )
    yield Sample(
        "entities.html", page("&check; done&comma; &lbrack;1&rbrack; &apos;x&apos; &LT;x&GT;"), must=("✓ done, [1] 'x' <x>",)
    )
    yield Sample(
        "shown-as-blocks.html",
        page(
            "<span style='color:red; display: block'>Alpha</span><span style='display:flex'>Beta</span>fo<b style='display:inline'>o</b>"
        ),
        must=("Alpha Beta foo",),
    )
    yield Sample(
        "svg-lines.html",
        page(
            "<svg><text><tspan x='0' dy='1em'>One</tspan><tspan x='0' dy='1em'>Two</tspan></text><text>wo<tspan>rd</tspan></text></svg>"
        ),
        must=("One Two", "word"),
    )
    yield Sample("old-blocks.html", page("<dir><li>q</dir>w<hgroup>h<p>p</p></hgroup>i"), must=("q w h p i",))
    yield Sample(
        "numbers.html",
        page("<ol start=4><li>Scope<ol><li>Parts</ol><li>Price<li value=9>Term</ol><ul><li>Dot</ul>"),
        must=("4. Scope 1. Parts 5. Price 9. Term - Dot",),
    )
    yield Sample("two-pages.html", lambda: b"<html><body><p>One.</p></body></html><html><body><p>Two.</p></body></html>After.",
                 must=("One. Two. After.",))  # fmt: skip
    yield Sample("split-word.html", page("<p>foo<b>bar</b>baz<wbr>qux</p>"), must=("foobarbazqux",))


def rtf_samples() -> Iterator[Sample]:
    def rtf(body: bytes) -> Callable[[], bytes]:
        return lambda: b"{\\rtf1\\ansi " + body + b"}"

    fonts = rb"{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}{\f2\fcharset134 SimSun;}{\f3\fcharset2 Symbol;}}"
    yield Sample("cyrillic.rtf", rtf(rb"\ansicpg1251 " + fonts + rb"\f1 \'ec\'ff\'e3\'ea\'e8\'f5\par"), must=("мягких",))
    yield Sample("chinese.rtf", rtf(rb"\ansicpg936 " + fonts + rb"\f2 \'d6\'d0\'ce\'c4\par"), must=("中文",))
    yield Sample("fonts.rtf", rtf(fonts + rb"\f0 Gr\'fc\'dfe {\f1 \'ec\'ff\'e3} {\f3 a}\par"), must=("Grüße мяг α",))
    yield Sample("unicode.rtf", rtf(rb"\uc1 na\u239?ve \u-10179?\u-8704? {\uc0 \u946 x}\par"), must=("naïve \U0001f600 βx",))
    yield Sample("raw.rtf", rtf(b"\\ansicpg1251 \xec\xff\xe3\xea\xe8\xf5"), must=("мягких",))
    yield Sample("footnote.rtf", rtf(rb" Safe for adults{\super\chftn}{\footnote {\super\chftn} Except kidneys.}.\par Next.\par"),
                 must=("Safe for adults.", "Except kidneys. Next."))  # fmt: skip
    yield Sample("table.rtf", rtf(rb"\trowd\cellx1\cellx2\intbl Part\cell Count\cell\row\trowd\cellx1\cellx2\intbl Bolt\cell 12\cell\row\pard"
                 rb" After.\par"), must=("Part: Bolt; Count: 12", "After."))  # fmt: skip
    yield Sample(
        "hyphens.rtf", rtf(rb"ABC\_4711 co\-operate a\~b\line next\tab end\par"), must=("ABC-4711 cooperate a b next end",)
    )
    yield Sample("headers.rtf", rtf(rb"{\header Contract 4711\par} Body {\v hidden}{\deleted gone}.\par"),
                 must=("Contract 4711", "Body hidden."), never=("gone",))  # fmt: skip
    yield Sample("box.rtf", rtf(rb"a{\shp{\*\shpinst{\sp{\sn x}{\sv 202}}{\shptxt Boxed.\par}}{\shprslt{\*\do{\dptxbxtext Boxed.}}}} b\par"),
                 must=("a b",), count={"Boxed.": 1})  # fmt: skip
    yield Sample("comment.rtf", rtf(rb"text{\*\atnauthor Ada}\chatn{\*\annotation check this} end\par"),
                 must=("text end", "check this"))  # fmt: skip
    yield Sample("picture.rtf", rtf(rb"a{\pict\pngblip\bin5 {{{{{} b\par"), must=("a b",), problem="images")
    yield Sample(
        "field.rtf", rtf(rb'See {\field{\*\fldinst HYPERLINK "x"}{\fldrslt the site}} now.'), must=("See the site now.",)
    )
    form = rb"{\field{\*\fldinst FORM {\*\formfield{\fftype%b{\*\ffname N}%b}}}{\fldrslt %b}}"
    colours = rb"{\*\ffl Red}{\*\ffl {\loch Gr\'fcn}}{\*\ffl \u-10179?\u-8704?}"
    yield Sample(
        "form.rtf",
        rtf(
            b"\\uc1 Chosen: "
            + b"; ".join(
                form % values
                for values in (
                    (b"2", rb"\ffres1\ffhaslistbox1" + colours, b""),
                    (b"2", rb"\ffres25\ffdefres2" + colours, b" "),
                    (b"2", rb"\ffres0" + colours, b"Red"),
                    (b"2", rb"\ffres9" + colours, b""),
                    (b"1", rb"\ffres1", b""),
                    (b"1", rb"\ffres0\ffdefres1", b""),
                    (b"1", rb"\ffres25\ffdefres1", b""),
                    (b"0", rb"{\*\ffdeftext Unknown}", b"Ada Lovelace"),
                    (b"0", rb"{\*\ffdeftext Unknown}", b""),
                )
            )
            + rb" End {\field{\*\fldinst {\*\formfield{\fftype0{\*\ffdeftext Default}}}}}.\par"
        ),
        must=("Chosen: Grün; \U0001f600; Red; ; ☒ ; ☐ ; ☒ ; Ada Lovelace; End Default.",),
        count={"Red": 1},
        never=("Unknown", "FORM"),
    )
    yield Sample(
        "form-in-table.rtf",
        rtf(
            rb"\trowd\cellx1\cellx2\intbl Colour\cell Sent\cell\row\trowd\cellx1\cellx2\intbl "
            + form % (b"2", rb"\ffres1" + colours, b"")
            + rb"\cell "
            + form % (b"1", rb"\ffres1", b"")
            + rb"\cell\row\pard After{\deleted "
            + form % (b"2", rb"\ffres0" + colours, b"")
            + rb"}.\par"
        ),
        must=("Colour: Grün; Sent: ☒", "After."),
        never=("Red",),
    )
    yield Sample("after.rtf", lambda: b"{\\rtf1\\ansi Rich text.\\par}\0\0 junk", must=("Rich text.",))
    yield Sample("macintosh.rtf", lambda: b"{\\rtf1\\mac caf\\'8e\\par}", must=("café",))
    yield Sample("fallback-words.rtf", rtf(rb"x \u8226\bullet text \u160\~ok \u8209\_fine \u8212\tab end\par"),
                 must=("x •text ok \u2011fine — end",))  # fmt: skip
    yield Sample("columns.rtf", rtf(rb"Left\column Right\softpage next\lbr0 line\par"), must=("Left Right next line",))
    yield Sample("power.rtf", rtf(rb"10{\super 6} cells and 10\super 7\nosupersub  more, H{\sub 2}O\par"),
                 must=("10^6 cells and 10^7 more, H2O",))  # fmt: skip
