"""HTML and Markdown: words stay whole, tables keep the names of their columns, links their addresses."""

from __future__ import annotations

import pytest

from adapters.documents.formats import html, markdown


def of_html(source: str) -> list[str]:
    return [piece.text for piece in html.read(source.encode()).pieces]


def of_markdown(source: str) -> list[str]:
    return [piece.text for piece in markdown.read(source.encode()).pieces]


# --- words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("It holds 3×10<sup>6</sup> litres", "It holds 3×10^6 litres"),
        ("45<sup>2</sup> people since 2019<sup>3</sup>.", "45^2 people since 2019 [3]."),
        ("the keeper<sup>12</sup> and the end.<sup>4</sup>", "the keeper [12] and the end. [4]"),
        ("5 m<sup>2</sup>, x<sup>n+1</sup>, 10<sup>−3</sup>", "5 m^2, x^n+1, 10^−3"),
        ("the 1<sup>st</sup> and M<sup>me</sup> B", "the 1st and Mme B"),
        ("H<sub>2</sub>O, x<sub>i</sub>, 101<sub>2</sub>", "H2O, x_i, 101_2"),
        ("text<sup>[3]</sup>", "text [3]"),
    ],
)
def test_raised_and_lowered_text_is_not_glued_to_numbers(source: str, text: str) -> None:
    assert of_html(f"<p>{source}</p>") == [text]
    assert of_markdown(source) == [text]


@pytest.mark.parametrize(
    "source",
    [
        "<ruby>閘<rt>こう</rt>門<rt>もん</rt></ruby>は六時に開く。",
        "<ruby>閘<rp>(</rp><rt>こう</rt><rp>)</rp>門<rp>(</rp><rt>もん</rt><rp>)</rp></ruby>は六時に開く。",
        "<ruby>閘門<rt>こうもん</rt></ruby>は六時に開く。",
    ],
)
def test_the_reading_of_a_ruby_is_after_the_word(source: str) -> None:
    assert of_html(f"<p>{source}</p>") == ["閘門(こうもん)は六時に開く。"]
    assert of_markdown(source) == ["閘門(こうもん)は六時に開く。"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("水库的闸门每年检\n查一次，值班员负\n责记录水位。", "水库的闸门每年检查一次，值班员负责记录水位。"),
        ("水門は“毎年”\n点検する。", "水門は“毎年”点検する。"),
        ("The gate\nopens", "The gate opens"),
    ],
)
def test_a_line_end_is_a_space_only_where_the_script_has_spaces(source: str, text: str) -> None:
    assert of_html(f"<p>{source}</p>") == [text]
    assert of_markdown(source) == [text]


def test_breaks_within_words_are_no_part_of_them() -> None:
    assert of_html("<p>adminis&shy;tration, ad&#8203;min, long<wbr>word, 检<b>\n查</b></p>") == [
        "administration, admin, longword, 检查"
    ]


def test_elements_that_html_does_not_have_are_within_the_line() -> None:
    source = "<p>We met in <st1:City>Paris</st1:City> on <nobr>3 May</nobr><o:p></o:p> and <my-tip>paid</my-tip>.</p>"
    assert of_html(source) == ["We met in Paris on 3 May and paid."]
    assert of_html("<my-card><p>One</p><div>Two</div></my-card>") == ["One", "Two"]


# --- links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "after"),
    [
        ("https://example.org/forms/leave-7.pdf", " (https://example.org/forms/leave-7.pdf)"),
        ("/forms/leave-7.pdf", " (/forms/leave-7.pdf)"),
        ("mailto:ann@example.org?subject=x", " (ann@example.org)"),
        ("tel:+49123", " (+49123)"),
        ("#part", ""),
        ("javascript:go()", ""),
        ("data:text/plain,x", ""),
        ("/wiki/Leave", ""),
    ],
)
def test_links_keep_their_addresses(address: str, after: str) -> None:
    assert of_html(f'<p>The <a href="{address}">leave form</a> is here.</p>') == [f"The leave form{after} is here."]
    if not address.startswith(("javascript:", "data:")):  # which make no link
        assert of_markdown(f"The [leave form]({address}) is here.") == [f"The leave form{after} is here."]


def test_an_address_that_is_the_text_is_not_repeated() -> None:
    assert of_html('<a href="https://example.org/">example.org</a>') == ["example.org"]
    assert of_markdown("<https://example.org> and [x][1]\n\n[1]: https://example.org/x") == [
        "https://example.org and x (https://example.org/x)"
    ]


# --- tables --------------------------------------------------------------------------------------------------


def test_rows_of_html_have_the_names_of_their_columns() -> None:
    plain = "<table><tr><td>Tank<td>Volume</tr><tr><td>A<td>37</tr></table>"
    assert of_html(plain) == ["Tank: A; Volume: 37"]
    spans = (
        "<table><caption>Plans</caption><thead><tr><th rowspan=2>Plant<th colspan=2>2024</tr>"
        "<tr><th>Plan<th>Actual</tr></thead><tr><td rowspan=2>Nord<td>1<td>2</tr><tr><td>3<td>4</tr>"
        "<tr><td colspan=3>South of the river</tr>"
        "<tr><td>Sued<td colspan=2>closed</tr></table>"
    )
    assert of_html(spans) == [
        "Plans",
        "Plant: Nord; 2024 Plan: 1; 2024 Actual: 2\nPlant: Nord; 2024 Plan: 3; 2024 Actual: 4\nSouth of the river\n"
        "Plant: Sued; 2024 Plan: closed; 2024 Actual: closed",
    ]


def test_numbers_are_names_where_a_table_says_so() -> None:
    assert of_html("<table><tr><th>Size<th>36<th>37</tr><tr><td>Boot<td>4<td>0</tr></table>") == [
        "Size: Boot; 36: 4; 37: 0"
    ]
    assert of_markdown("| 1 | 2 |\n|---|---|\n| a | b |") == ["1: a; 2: b"]


def test_names_of_rows_are_no_names_of_columns() -> None:
    assert of_html("<table><tr><th>Plan<td>1</tr><tr><th>Actual<td>2</tr></table>") == ["Plan | 1\nActual | 2"]


def test_a_table_that_arranges_blocks_is_read_as_these() -> None:
    source = "<table><tr><td><ul><li>a<li>b</ul><td><h2>H</h2>text</tr></table><p>below</p>"
    assert of_html(source) == ["- a", "- b", "H", "text", "below"]


# --- what is seen, and what is not ---------------------------------------------------------------------------


def test_formulas_are_on_one_line() -> None:
    power = "<math><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup></math>"
    share = "<math><mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><msqrt><mi>d</mi></msqrt></mfrac></math>"
    tex = '<math><mi>x</mi><annotation encoding="application/x-tex">\\frac{1}{x}</annotation></math>'
    assert of_html(f"<p>E = {power}, {share}, {tex}</p>") == ["E = mc^2 , (a+b)/(√(d)) , \\frac{1}{x}"]


def test_interactive_parts_are_read_and_hidden_ones_are_counted() -> None:
    parsed = html.read(
        b"<nav><a>Home</a></nav><details><summary>When?</summary>At six.</details><button>Open</button>"
        b"<input value=Ann><input type=password value=secret><label><input type=checkbox checked>Agreed</label>"
        b"<div hidden>a</div><div style='color:red; display: none'>b</div><div hidden=until-found>found</div>"
        b"<svg><text>Label</text><style>c {}</style></svg>"
    )
    assert [piece.text for piece in parsed.pieces] == ["When?", "At six.", "Open Ann [x] Agreed", "found", "Label"]
    assert parsed.warnings == ["2 hidden parts left out", "1 navigation left out"]


@pytest.mark.parametrize(
    "front",
    [
        "---\ntitle: The weir\ntags: [a, b]\nauthor: Ann\n---\n",
        '+++\ntitle = "The weir"\ntags: [a, b]\nauthor: Ann\n+++\n',
    ],
)
def test_front_matter_is_read(front: str) -> None:
    parsed = markdown.read(f"{front}\n# One".encode())
    assert ([piece.text for piece in parsed.pieces], parsed.title) == (["tags: [a, b]\nauthor: Ann", "One"], "The weir")


def test_words_in_angle_brackets_are_no_markup() -> None:
    assert of_markdown("git clone <url> into List<String>, <b>now</b>") == ["git clone <url> into List<String>, now"]


def test_pairs_of_names_and_values_are_no_table_though_markdown_gives_them_a_header() -> None:
    assert of_markdown("| Order no. | A-4711 |\n|---|---|\n| Customer | Mill Ltd |\n| Total | 12 |") == [
        "Order no. | A-4711\nCustomer | Mill Ltd\nTotal | 12"
    ]


def test_styles_raise_and_lower_as_elements_do() -> None:
    assert of_html('<p>10<span style="vertical-align: super">6</span> l</p>') == ["10^6 l"]


def test_footnotes_of_markdown_are_text() -> None:
    assert of_markdown("It opens[^1] at six.\n\n[^1]: In summer.") == ["It opens[^1] at six.", "[^1]: In summer."]


def test_items_have_the_numbers_that_a_page_shows() -> None:
    source = (
        "<ol start=5><li>a<li>b<li value=9>c<li>d</ol><ol type=a start=3><li>e<li>f</ol><ol type=I><li>g<li>h</ol>"
        "<ol reversed><li>i<li>j</ol><ol start=x><li>k</ol>"
    )
    assert of_html(source) == [
        "5. a", "6. b", "9. c", "10. d", "c. e", "d. f", "I. g", "II. h", "2. i", "1. j", "1. k",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("<tr><th>Opens<td>six</tr><tr><th>Closes<td>nine</tr>", ["Opens | six\nCloses | nine"]),
        ("<tr><td><th>A<th>B</tr><tr><th>Red<td>0<td>1</tr>", ["Red; A: 0; B: 1"]),
        (
            "<tr><th>Tank<th>Parts</tr><tr><td>T1<td><ul><li>valve<li>pump</ul></tr>",
            ["Tank: T1; Parts: - valve - pump"],
        ),
        (
            "<tr><th colspan=2>Tanks</tr><tr><th>Name<th>Size</tr><tr><td>T1<td>2</tr>",
            ["Tanks", "Name: T1; Size: 2"],
        ),
    ],
)
def test_names_of_rows_titles_and_lists_in_cells(source: str, found: list[str]) -> None:
    assert of_html(f"<table>{source}</table>") == found


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            '<span><span><math><mi>E</mi><annotation encoding="application/x-tex">E=mc^2</annotation></math></span>'
            '<span aria-hidden="true">E=mc2</span></span> holds',
            "E=mc^2 holds",
        ),
        ('Energy <script type="math/tex">E=mc^2</script> holds', "Energy E=mc^2 holds"),
        ('The gate<a epub:type="noteref" href="#n1">1</a> opens', "The gate [1] opens"),
        ('since 2019<a role="doc-noteref" href="#n1">3</a>', "since 2019 [3]"),
        ('<span aria-hidden="true">seen</span>', "seen"),
        ("<textarea>typed</textarea><button>Send</button>", "typed Send"),
    ],
)
def test_formulas_and_marks_of_notes_are_there_once_and_apart(source: str, text: str) -> None:
    assert of_html(f"<p>{source}</p>") == [text]


@pytest.mark.parametrize(
    "address",
    [
        "https://www.google.com/url?q=https://example.org/a.pdf&sa=D",
        "https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fexample.org%2Fa.pdf&data=1",
    ],
)
def test_links_by_a_service_lead_where_it_sends(address: str) -> None:
    assert of_markdown(f"[form]({address})") == ["form (https://example.org/a.pdf)"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("2*3*4 and 2**3**4 and *all* un*real*", ["2*3*4 and 2**3**4 and all unreal"]),
        (r"\(a_1*b*c\) and $x*y*z$ for $5 or *6*$", [r"\(a_1*b*c\) and $x*y*z$ for $5 or 6$"]),
        ("# Gate {#gate .big}\n\nx {y}", ["Gate", "x {y}"]),
        (
            "+---+---+\n| A | B |\n+===+===+\n| 1 | 2 |\n+---+---+",
            ["+---+---+\n| A | B |\n+===+===+\n| 1 | 2 |\n+---+---+"],
        ),
        ("Gate\n: opens at six\n: by the keeper", ["Gate\n: opens at six\n: by the keeper"]),
        ("\\[\na*b*c\n\\] and \\[1\\]", ["\\[ a*b*c \\] and [1]"]),
    ],
)
def test_signs_of_other_dialects_are_text(source: str, found: list[str]) -> None:
    assert of_markdown(source) == found
