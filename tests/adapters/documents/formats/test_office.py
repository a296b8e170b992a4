"""Office documents: what stands nowhere in the text but is seen, and what is there but not seen."""

from __future__ import annotations

import io
import zipfile

import docx as writing
import pptx as showing
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from pptx.util import Inches

from adapters.documents.formats import docx, pptx, xml
from adapters.documents.formats.child import answer
from adapters.documents.formats.numbering import Numbering
from adapters.documents.formats.parsed import Parsed
from tests.adapters.documents.formats.corpus import zipped
from tests.adapters.documents.formats.hostile import changed, good

_W = nsdecls("w")


def document(body: str, **parts: str) -> Parsed:
    """Parse a Word document with this body; `parts` are those that it is related to, by their names."""
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    relations = "".join(f'<Relationship Id="{name}" Type="{relation}/{name}" Target="{name}.xml"/>' for name in parts)
    return docx.read(
        zipped(
            {
                "word/document.xml": f"<w:document {_W}><w:body>{body}</w:body></w:document>",
                "word/_rels/document.xml.rels": f"<Relationships>{relations}</Relationships>",
                **{f"word/{name}.xml": f"<w:{name} {_W}>{content}</w:{name}>" for name, content in parts.items()},
            }
        )
    )


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def styled(text: str, style: str) -> str:
    return paragraph(text, f'<w:pStyle w:val="{style}"/>')


def blocks(parsed: Parsed) -> list[tuple[str, str | None]]:
    return [(piece.text, piece.heading) for piece in parsed.pieces]


# --- Word ----------------------------------------------------------------------------------------------------


def test_headings_are_found_by_their_styles_in_any_language() -> None:
    styles = """
    <w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
    <w:style w:type="paragraph" w:styleId="Own"><w:name w:val="Own"/><w:basedOn w:val="berschrift1"/></w:style>
    <w:style w:type="paragraph" w:styleId="Deep"><w:name w:val="Deep"/>
    <w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
    <w:style w:type="paragraph" w:styleId="Ring"><w:name w:val="Ring"/><w:basedOn w:val="Ring"/></w:style>
    <w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>
    <w:style w:type="paragraph" w:styleId="TOC1"><w:name w:val="toc 1"/></w:style>"""
    body = (
        styled("The weir", "Titel") + styled("1 One ... 3", "TOC1") + styled("One", "berschrift1") + styled("a", "Ring")
        + styled("Two", "Deep") + styled("b", "") + styled("Three", "Own") + styled("long " * 80, "Own")
        + paragraph("Four", '<w:outlineLvl w:val="0"/>')
    )  # fmt: skip
    parsed = document(body, styles=styles)
    assert parsed.title == "The weir"
    assert blocks(parsed) == [
        ("The weir", None), ("One", "One"), ("a", "One"), ("Two", "One › Two"), ("b", "One › Two"), ("Three", "Three"),
        (("long " * 80).strip(), "Three"), ("Four", "Four"),
    ]  # fmt: skip


def level(number: int, format: str, text: str, more: str = "") -> str:
    return (
        f'<w:lvl w:ilvl="{number}"><w:start w:val="1"/><w:numFmt w:val="{format}"/>'
        f'<w:lvlText w:val="{text}"/>{more}</w:lvl>'
    )


NUMBERING = f"""<w:numbering {_W}>
<w:abstractNum w:abstractNumId="0">{level(0, "decimal", "§ %1")}{level(1, "lowerLetter", "%1.%2)")}
{level(2, "upperRoman", "%3.")}{level(3, "decimal", "%3.%4", "<w:isLgl/>")}{level(4, "bullet", "•")}
{level(5, "none", "%6")}{level(6, "decimalZero", "%7")}</w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>
<w:num w:numId="2"><w:abstractNumId w:val="0"/></w:num>
<w:num w:numId="3"><w:abstractNumId w:val="0"/>
<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride></w:num>
</w:numbering>"""


def test_numbers_are_counted_as_word_does() -> None:
    numbering = Numbering(xml.tree(io.BytesIO(NUMBERING.encode())))
    items = [
        (0, "1"),
        (1, "1"),
        (1, "1"),
        (2, "1"),
        (2, "1"),
        (3, "1"),
        (0, "2"),
        (1, "2"),
        (0, "3"),
        (4, "1"),
        (5, "1"),
        (6, "1"),
    ]
    assert [numbering.next(list_id, depth) for depth, list_id in items] == [
        "§ 1 ", "1.a) ", "1.b) ", "I. ", "II. ", "2.1 ", "§ 2 ", "2.a) ", "§ 5 ", "- ", "", "01 ",
    ]  # fmt: skip
    assert numbering.next("9", 0) == ""
    assert [numbering.next("3", 1) for _ in range(28)][24:] == ["5.y) ", "5.z) ", "5.aa) ", "5.bb) "]


def test_numbers_stand_before_items_and_headings() -> None:
    styles = """<w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/><w:pPr><w:numPr>
    <w:numId w:val="1"/></w:numPr></w:pPr></w:style>"""
    item = '<w:numPr><w:ilvl w:val="1"/><w:numId w:val="1"/></w:numPr>'
    plain = '<w:pStyle w:val="H1"/><w:numPr><w:numId w:val="0"/></w:numPr>'
    body = styled("Gates", "H1") + paragraph("Open", item) + styled("Oil", "H1") + paragraph("Annex", plain)
    numbering = NUMBERING[NUMBERING.index(">") + 1 : NUMBERING.rindex("<")]
    assert [text for text, _ in blocks(document(body, styles=styles, numbering=numbering))] == [
        "§ 1 Gates", "1.a) Open", "§ 2 Oil", "Annex",
    ]  # fmt: skip


def test_a_cell_that_spans_rows_counts_for_each() -> None:
    file = writing.Document()
    table = file.add_table(3, 2)
    for row, texts in zip(table.rows, (("Group", "Unit"), ("River", "Agnes"), ("", "Bert")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    data = io.BytesIO()
    file.save(data)
    assert blocks(docx.read(data.getvalue())) == [("Group: River; Unit: Agnes\nGroup: River; Unit: Bert", None)]


def test_a_table_that_only_lays_out_the_page_is_read_as_what_is_in_it() -> None:
    inner = "<w:tbl><w:tr><w:tc>{}</w:tc><w:tc>{}</w:tc></w:tr></w:tbl>".format(paragraph("a"), paragraph("b"))
    body = f"<w:tbl><w:tr><w:tc>{paragraph('One')}{paragraph('Two')}{inner}</w:tc></w:tr></w:tbl>"
    assert [text for text, _ in blocks(document(body))] == ["One", "Two", "a | b"]


def test_signs_that_are_no_text_are_read_as_what_they_look_like() -> None:
    run = '<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:sym w:font="x" w:char="2192"/>'
    run += '<w:sym w:font="Wingdings" w:char="F0E0"/></w:r><m:oMath xmlns:m="m"><m:r><m:t>x=2</m:t></m:r></m:oMath>'
    assert blocks(document(f"<w:p>{run}</w:p>")) == [("a b\nc-→x=2", None)]


def test_strict_documents_are_read_as_others() -> None:
    body = "<w:document xmlns:w='http://purl.oclc.org/ooxml/wordprocessingml/main'><w:body>{}</w:body></w:document>"
    data = zipped({"word/document.xml": body.format(paragraph("Water runs."))})
    assert blocks(docx.read(data)) == [("Water runs.", None)]


def test_names_of_parts_may_differ_in_case() -> None:
    file = writing.Document()
    file.add_paragraph("Water runs.")
    data = io.BytesIO()
    file.save(data)
    with zipfile.ZipFile(data) as archive:
        parts = {name.replace("word/document", "Word/Document"): archive.read(name) for name in archive.namelist()}
    assert blocks(docx.read(zipped(parts))) == [("Water runs.", None)]


# --- Word: words, links, fields, parts -----------------------------------------------------------------------


def run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t xml:space='preserve'>{text}</w:t></w:r>"


def raised(text: str, place: str = "superscript") -> str:
    return run(text, f'<w:vertAlign w:val="{place}"/>')


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        (run("10") + raised("6") + run(" litres since 2019") + raised("3") + run("."), "10^6 litres since 2019 [3]."),
        (run("H") + raised("2", "subscript") + run("O, the 1") + raised("st"), "H2O, the 1st"),
        (
            f"<w:r><w:ruby><w:rt>{run('こう')}</w:rt><w:rubyBase>{run('閘')}</w:rubyBase></w:ruby></w:r>{run('は')}",
            "閘(こう)は",
        ),
        (
            "<m:oMath xmlns:m='m'><m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup>"
            "</m:sSup><m:r><m:t>=</m:t></m:r><m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r>"
            "</m:den></m:f></m:oMath>",
            "x^2=(a+b)/2",
        ),
        (
            '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r>'
            '<w:instrText>HYPERLINK "https://example.org/a.pdf"</w:instrText>'
            f'</w:r><w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("form")}'
            '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
            f"<w:fldSimple w:instr='HYPERLINK \"https://example.org/b\"'>{run(' other')}</w:fldSimple>",
            "form (https://example.org/a.pdf) other (https://example.org/b)",
        ),
        (
            '<w:r><w:fldChar w:fldCharType="begin"><w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData>'
            "</w:fldChar></w:r>" + run("Agreed"),
            "[x] Agreed",
        ),
        (run("10") + '<w:r><w:rPr><w:position w:val="6"/></w:rPr><w:t>6</w:t></w:r>', "10^6"),
        (
            '<m:oMath xmlns:m="m"><m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub><m:r>'
            "<m:t>i=1</m:t></m:r></m:sub><m:sup><m:r><m:t>n</m:t></m:r></m:sup><m:e><m:d><m:dPr>"
            "<m:begChr m:val='['/><m:endChr m:val=']'/></m:dPr>"
            "<m:e><m:r><m:t>a</m:t></m:r></m:e><m:e><m:r><m:t>b</m:t></m:r></m:e></m:d></m:e></m:nary><m:acc>"
            "<m:e><m:r><m:t>c</m:t></m:r></m:e></m:acc><m:limLow><m:e><m:r><m:t>lim</m:t></m:r></m:e><m:lim><m:r>"
            "<m:t>x→0</m:t></m:r></m:lim></m:limLow></m:oMath>",
            "∑_(i=1)^n [a|b] c\u0302lim_(x→0)",
        ),
        (
            '<w:r><w:fldChar w:fldCharType="begin"><w:ffData><w:ddList><w:result w:val="1"/><w:listEntry w:val="Ulm"/>'
            '<w:listEntry w:val="Bonn"/></w:ddList></w:ffData></w:fldChar></w:r>',
            "Bonn",
        ),
    ],
)
def test_what_stands_above_below_and_behind_words_is_read(runs: str, text: str) -> None:
    assert blocks(document(f"<w:p>{runs}</w:p>")) == [(text, None)]


def test_styles_of_characters_raise_and_hide_text() -> None:
    styles = (
        '<w:style w:type="character" w:styleId="Note"><w:name w:val="footnote reference"/>'
        '<w:rPr><w:vertAlign w:val="superscript"/></w:rPr></w:style>'
        '<w:style w:type="character" w:styleId="Mine"><w:basedOn w:val="Note"/></w:style>'
        '<w:style w:type="character" w:styleId="Gone"><w:rPr><w:vanish/></w:rPr></w:style>'
    )

    def by(style: str, text: str, more: str = "") -> str:
        return f'<w:r><w:rPr><w:rStyle w:val="{style}"/>{more}</w:rPr><w:t>{text}</w:t></w:r>'

    body = run("10") + by("Mine", "6") + by("Gone", "secret") + by("Gone", " l", '<w:vanish w:val="0"/>')
    parsed = document(f"<w:p>{body}</w:p>", styles=styles)
    assert blocks(parsed) == [("10^6 l", None)]
    assert parsed.warnings == ["1 hidden text left out"]


@pytest.mark.parametrize(
    "properties", ['<w:framePr w:dropCap="drop"/>', '<w:rPr><w:del w:id="1"/></w:rPr>']
)  # fmt: skip
def test_a_large_initial_and_a_paragraph_without_an_end_go_on_in_the_next(properties: str) -> None:
    begin = f"<w:p><w:pPr>{properties}</w:pPr>{run('T')}</w:p>"
    assert blocks(document(begin + paragraph("he gate"))) == [("The gate", None)]
    table = f"<w:tbl><w:tr><w:tc>{paragraph('cell')}</w:tc></w:tr></w:tbl>"
    assert blocks(document(begin + table + begin)) == [("T", None), ("cell", None), ("T", None)]


def test_links_and_embedded_documents_are_read_and_hidden_parts_are_counted() -> None:
    file = writing.Document()
    linked = file.add_paragraph("The ")
    external = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
    id = file.part.relate_to("https://example.org/leave-7.pdf", external, is_external=True)
    linked._p.append(
        parse_xml(f'<w:hyperlink {nsdecls("w", "r")} r:id="{id}"><w:r><w:t>leave form</w:t></w:r></w:hyperlink>')
    )
    file.add_paragraph().add_run("unseen").font.hidden = True
    file.element.body.insert(1, parse_xml(f'<w:altChunk {nsdecls("w", "r")} r:id="rChunk"/>'))
    data = io.BytesIO()
    file.save(data)
    with zipfile.ZipFile(data) as archive:
        relations = archive.read("word/_rels/document.xml.rels").decode()
    chunk = '<Relationship Id="rChunk" Type="http://x/aFChunk" Target="chunk.html"/></Relationships>'
    whole = changed(
        data.getvalue(),
        {
            "word/_rels/document.xml.rels": relations.replace("</Relationships>", chunk),
            "word/chunk.html": "<h1>Part</h1><p>Embedded text.</p>",
        },
    )
    parsed = docx.read(whole)
    assert [text for text, _ in blocks(parsed)] == [
        "The leave form (https://example.org/leave-7.pdf)",
        "Part",
        "Embedded text.",
    ]
    assert parsed.warnings == ["1 hidden text left out"]


def test_a_broken_part_leaves_the_others() -> None:
    parsed = docx.read(changed(good()["a.docx"].data, {"word/footnotes.xml": "<w:footnotes"}))
    assert len(parsed.pieces) > 10
    assert parsed.warnings[-1] == "part word/footnotes.xml cannot be read"


def test_a_damaged_part_leaves_the_others() -> None:
    data = bytearray(good()["a.docx"].data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.getinfo("word/footnotes.xml")
    place = entry.header_offset + 60 + entry.compress_size // 2
    data[place : place + 20] = bytes(20)
    parsed = docx.read(bytes(data))
    assert len(parsed.pieces) > 10
    assert parsed.warnings[-1] == "part word/footnotes.xml cannot be read"


def test_links_of_notes_are_those_of_their_part() -> None:
    hyperlink = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
    notes = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"

    def relations(address: str, more: str = "") -> str:
        link = f'<Relationship Id="rId1" Type="{hyperlink}" Target="{address}" TargetMode="External"/>'
        return f"<Relationships>{link}{more}</Relationships>"

    link = f'<w:hyperlink r:id="rId1">{run("here")}</w:hyperlink>'
    reference = '<w:r><w:footnoteReference w:id="1"/></w:r>'
    names = f"{_W} {nsdecls('r')}"
    parts = {
        "word/document.xml": f"<w:document {names}><w:body><w:p>{link}{reference}</w:p><w:p>{link}</w:p></w:body>"
        "</w:document>",
        "word/_rels/document.xml.rels": relations(
            "https://example.org/a", f'<Relationship Id="n" Type="{notes}" Target="footnotes.xml"/>'
        ),
        "word/footnotes.xml": f'<w:footnotes {names}><w:footnote w:id="1"><w:p>{link}</w:p></w:footnote></w:footnotes>',
        "word/_rels/footnotes.xml.rels": relations("https://example.org/b"),
    }
    assert [text for text, _ in blocks(docx.read(zipped(parts)))] == [
        f"here (https://example.org/{letter})" for letter in "aba"
    ]


def test_rows_have_the_names_of_their_columns_and_lines_across_have_none() -> None:
    def row(*cells: str, more: str = "") -> str:
        return f"<w:tr>{more}{''.join(f'<w:tc>{cell}</w:tc>' for cell in cells)}</w:tr>"

    wide, across = (f'<w:tcPr><w:gridSpan w:val="{columns}"/></w:tcPr>' for columns in (2, 3))
    body = (
        row(paragraph("Tank"), wide + paragraph("2024")) + row(paragraph(""), paragraph("Plan"), paragraph("Actual"))
        + row(paragraph("A"), paragraph("1"), paragraph("2")) + row(across + paragraph("Upper"))
        + row(paragraph("B"), paragraph("3"), paragraph("4"))
    )  # fmt: skip
    assert blocks(document(f"<w:tbl>{body}</w:tbl>")) == [
        ("Tank: A; 2024 Plan: 1; 2024 Actual: 2\nUpper\nTank: B; 2024 Plan: 3; 2024 Actual: 4", None)
    ]
    header = "<w:trPr><w:tblHeader/></w:trPr>"
    sizes = row(paragraph("12"), paragraph("14"), more=header) + row(paragraph("a"), paragraph("b"))
    assert blocks(document(f"<w:tbl>{sizes}</w:tbl>")) == [("12: a; 14: b", None)]


@pytest.mark.parametrize("columns", ["0", "-1", "some"])
def test_a_cell_that_spans_no_number_of_columns_spans_one(columns: str) -> None:
    cells = "".join(
        f'<w:tc><w:tcPr><w:gridSpan w:val="{columns}"/></w:tcPr>{paragraph(text)}</w:tc>' for text in ("Upper", "Lower")
    )
    assert blocks(document(f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>")) == [("Upper | Lower", None)]


# --- PowerPoint ----------------------------------------------------------------------------------------------


@pytest.fixture
def show() -> bytes:
    """A presentation of two slides in two sections; the first has a shape that is hidden, and a foot."""
    file = showing.Presentation()
    for name in ("Gates", "Oil"):
        slide = file.slides.add_slide(file.slide_layouts[5])
        slide.shapes.title.text = name
        for words in ("seen", "hidden"):
            box = slide.shapes.add_textbox(Inches(1), Inches(1), Inches(1), Inches(1))
            box.text_frame.text = f"{words} in {name}"
        box._element.nvSpPr.cNvPr.set("hidden", "1")
    ids = [slide.get("id") for slide in file.element.sldIdLst]
    sections = "".join(
        f'<s:section name="Part {number}"><s:sldIdLst><s:sldId id="{id}"/></s:sldIdLst></s:section>'
        for number, id in enumerate(ids, 1)
    )
    file.element.append(parse_xml(f'<s:sectionLst xmlns:s="urn:s">{sections}</s:sectionLst>'))
    data = io.BytesIO()
    file.save(data)
    return data.getvalue()


def test_sections_stand_above_titles_and_hidden_shapes_are_left_out(show: bytes) -> None:
    assert [(piece.text, piece.page, piece.heading) for piece in pptx.read(show).pieces] == [
        ("Gates", 1, "Part 1 › Gates"),
        ("seen in Gates", 1, "Part 1 › Gates"),
        ("Oil", 2, "Part 2 › Oil"),
        ("seen in Oil", 2, "Part 2 › Oil"),
    ]


def test_a_broken_slide_leaves_the_others(show: bytes) -> None:
    parsed = pptx.read(changed(show, {"ppt/slides/slide2.xml": "<a><b></a>"}))
    assert [piece.text for piece in parsed.pieces] == ["Gates", "seen in Gates"]
    assert parsed.warnings == ["1 hidden shape left out", "part ppt/slides/slide2.xml cannot be read"]


def test_a_show_without_a_sound_slide_is_broken(show: bytes) -> None:
    data = changed(show, {f"ppt/slides/slide{number}.xml": "<a><b></a>" for number in (1, 2)})
    assert answer(data, kind="pptx", plugin=None, media_type="", name="a.pptx")["code"] == "broken_file"


def test_tables_links_and_small_digits_of_slides() -> None:
    file = showing.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[5])
    slide.shapes.title.text = "Tanks"
    table = slide.shapes.add_table(3, 3, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for place, text in {
        (0, 0): "Tank",
        (0, 1): "2024",
        (1, 1): "Plan",
        (1, 2): "Actual",
        (2, 0): "A",
        (2, 1): "1",
        (2, 2): "2",
    }.items():
        table.cell(*place).text = text
    table.cell(0, 0).merge(table.cell(1, 0))
    table.cell(0, 1).merge(table.cell(0, 2))
    paragraph = slide.shapes.add_textbox(Inches(1), Inches(1), Inches(1), Inches(1)).text_frame.paragraphs[0]
    link = paragraph.add_run()
    link.text, link.hyperlink.address = "leave form", "https://example.org/leave-7.pdf"
    paragraph.add_run().text = " for 10"
    power = paragraph.add_run()
    power.text = "6"
    power._r.get_or_add_rPr().set("baseline", "30000")
    data = io.BytesIO()
    file.save(data)
    assert [piece.text for piece in pptx.read(data.getvalue()).pieces] == [
        "Tanks", "Tank: A; 2024 Plan: 1; 2024 Actual: 2", "leave form (https://example.org/leave-7.pdf) for 10^6",
    ]  # fmt: skip
