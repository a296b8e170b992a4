"""Documents in every format whose texts are known, written by other programs than those that read them.

Every text holds a unique number, which identifies it, and characters that formats have to escape.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from xml.sax.saxutils import escape

import docx
import pptx
import xlsxwriter
import xlwt
from docx.opc.constants import RELATIONSHIP_TYPE as RELATION
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Table


def _words(text: str) -> list[str]:
    return text.split()


WORDS = _words("""weir water Größe naïve tower œuvre lamp & < > "quoted" it's 5 % река 水门 oil boom upstream""")
LATIN = _words("""weir water Größe naïve tower lamp & < > "quoted" it's 5 % quarry oil boom upstream""")


@dataclass(frozen=True, slots=True)
class Fact:
    """A text that a document holds, what it is there, and its place."""

    part: str
    text: str
    page: int | None = None
    heading: str | None = None


@dataclass(slots=True)
class Sample:
    """A document with texts that must be found in it, and texts that must not."""

    format: str
    name: str
    data: bytes = b""
    facts: list[Fact] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    title: str | None = None
    pages: int | None = None

    def add(self, part: str, text: str, heading: str | None = None, page: int | None = None) -> str:
        self.facts.append(Fact(part, text, page, heading))
        return text

    def leave_out(self, text: str) -> str:
        self.absent.append(text)
        return text


class Scribe:
    """Makes up texts, the same ones every time."""

    def __init__(self, seed: str, words: list[str] = WORDS) -> None:
        self._random = random.Random(seed)
        self._words = words
        self._count = 10_000

    def text(self, words: int = 12) -> str:
        self._count += 1
        chosen = self._random.choices(self._words, k=words)
        return f"Text {self._count} {' '.join(chosen)} ends."

    def label(self, name: str) -> str:
        self._count += 1
        return f"{name} {self._count}"

    def number(self) -> int:
        self._count += 1
        return self._count * 1000 + self._random.randrange(1000)


def samples(chapters: int = 3) -> Iterator[Sample]:
    """A document of every format, or of several ways to write it."""
    for write in WRITERS:
        yield from write(chapters)


# --- text ----------------------------------------------------------------------------------------------------

ENCODINGS = {
    "utf-8": WORDS,
    "utf-8-sig": WORDS,
    "utf-16": WORDS,
    "utf-32": WORDS,
    "cp1252": LATIN,
    "iso8859-2": _words("woda płynie przez zaporę źródło część wśród gór łączy się"),
    "cp1250": _words("woda płynie przez zaporę źródło část přes hráz řeka teče"),
    "cp1251": _words("вода течёт через плотину руководство описывает работу станции"),
    "koi8-r": _words("вода течёт через плотину руководство описывает работу станции"),
    "cp1253": _words("το νερό ρέει μέσα από φράγμα εγχειρίδιο λειτουργία"),
    "cp1255": _words("המים זורמים דרך הסכר מדריך זה מתאר את"),
    "cp1256": _words("الماء يجري في القناة يصف هذا الدليل تشغيل المحطة"),
    "cp874": _words("น้ำไหลผ่านเขื่อน คู่มือนี้อธิบายการทำงาน ของสถานี"),
    "cp932": _words("水は流れる。 止まらない。 工場では毎日多くの部品が 作られています。"),
    "euc_jp": _words("水は流れる。 止まらない。 工場では毎日多くの部品が 作られています。"),
    "iso2022_jp": _words("水は流れる。 止まらない。 工場では毎日多くの部品が 作られています。"),
    "gb18030": _words("水流过堤坝。 这是一个关于水力发电的手册， 我们在这里说明操作步骤。"),
    "big5": _words("水流過堤壩。 這是一個關於水力發電的手冊， 我們在這裡說明操作步驟。"),
    "cp949": _words("물이 댐을 지나 흐릅니다. 안내서는 수력 발전소의 운영 절차를 설명합니다."),
}


def text(chapters: int) -> Iterator[Sample]:
    for encoding, words in ENCODINGS.items():
        scribe, sample = Scribe(encoding, words), Sample("TXT", f"{encoding}.txt")
        paragraphs = [sample.add("paragraph", scribe.text()) for _ in range(3 * chapters)]
        sample.data = "\r\n\r\n".join(paragraphs).encode(encoding)
        yield sample


def markdown(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("markdown", LATIN[:6]), Sample("Markdown", "a.md", title="The weir")
    lines = ["---", "title: The weir", "---"]
    for _ in range(chapters):
        one = scribe.label("Chapter")
        lines += [f"# {sample.add('heading', one, one)}", ""]
        lines += [sample.add("paragraph", scribe.text(), one), ""]
        two = scribe.label("Part")
        path = f"{one} › {two}"
        lines += [f"## {sample.add('heading', two, path)}", ""]
        lines += [f"- {sample.add('list item', scribe.text(), path)}" for _ in range(2)]
        lines += ["", "| Unit | Power |", "|---|---|"]
        lines += [f"| {sample.add('cell', scribe.text(3), path)} | {sample.add('cell', scribe.label('kW'), path)} |"]
        lines += ["", "```", sample.add("code", f"x = '{scribe.text(2)}'", path), "```", ""]
    sample.data = "\n".join(lines).encode()
    yield sample


def _page(scribe: Scribe, sample: Sample, chapters: int) -> str:
    """The body of a page of HTML."""
    parts = []
    for _ in range(chapters):
        one, two = scribe.label("Chapter"), scribe.label("Part")
        path = f"{one} › {two}"
        parts.append(f"<h1>{escape(sample.add('heading', one, one))}</h1>")
        parts.append(f"<p>{escape(sample.add('paragraph', scribe.text(), one))}</p>")
        parts.append(f"<h2>{escape(sample.add('heading', two, path))}</h2><ul>")
        parts += [f"<li>{escape(sample.add('list item', scribe.text(), path))}</li>" for _ in range(2)]
        parts.append("</ul><table>")
        for _ in range(2):
            cells = "".join(f"<td>{escape(sample.add('cell', scribe.text(3), path))}</td>" for _ in range(3))
            parts.append(f"<tr>{cells}</tr>")
        parts.append(f"</table><pre>{escape(sample.add('code', scribe.text(3), path))}</pre>")
        parts.append(f"<p><img src='a.png' alt='{sample.add('alternative text', scribe.label('A map'), path)}'/></p>")
        parts.append(f"<p hidden=''>{escape(sample.leave_out(scribe.text()))}</p>")
        parts.append(f"<script>var x = '{sample.leave_out(scribe.label('script'))}'</script>")
    return "".join(parts)


def html(chapters: int) -> Iterator[Sample]:
    sample = Sample("HTML", "a.html", title="The weir")
    body = _page(Scribe("html"), sample, chapters)
    sample.data = f"<!doctype html><meta charset=utf-8><title>The weir</title><body>{body}".encode()
    yield sample


# --- PDF -----------------------------------------------------------------------------------------------------


def pdf(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("pdf", LATIN), Sample("PDF", "a.pdf", title="The weir", pages=chapters)
    styles = getSampleStyleSheet()
    story: list[object] = []
    for page in range(1, chapters + 1):
        one = scribe.label("Chapter")
        story.append(Paragraph(escape(sample.add("heading", one, one, page)), styles["Heading1"]))
        for _ in range(4):
            story.append(Paragraph(escape(sample.add("paragraph", scribe.text(60), one, page)), styles["BodyText"]))
        rows = [[sample.add("cell", scribe.label("Value"), one, page) for _ in range(3)] for _ in range(3)]
        story += [Table(rows), PageBreak()]
    file = io.BytesIO()
    SimpleDocTemplate(file, title="The weir", invariant=1).build(story)
    sample.data = file.getvalue()
    yield sample


# --- Word ----------------------------------------------------------------------------------------------------

_W = nsdecls("w")
_NOTE = '<w:p {w}><w:r><w:{kind}Ref/></w:r><w:r><w:t xml:space="preserve"> {text}</w:t></w:r></w:p>'
_BOX = """
<w:r xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"
 xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"
 xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"
 xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"
 xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"
 xmlns:v="urn:schemas-microsoft-com:vml"><mc:AlternateContent>
<mc:Choice Requires="wps"><w:drawing><wp:inline><wp:docPr id="1" name="Box" descr="{alt}"/><a:graphic><a:graphicData>
<wps:wsp><wps:txbx><w:txbxContent><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:txbxContent></wps:txbx></wps:wsp>
</a:graphicData></a:graphic></wp:inline></w:drawing></mc:Choice>
<mc:Fallback><w:pict><v:textbox><w:txbxContent><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:txbxContent></v:textbox></w:pict>
</mc:Fallback></mc:AlternateContent></w:r>"""


def word(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("docx"), Sample("DOCX", "a.docx", title="The weir")
    document = docx.Document()
    document.core_properties.title = "The weir"
    notes: dict[str, list[str]] = {"footnote": [], "endnote": []}
    section = document.sections[0]
    section.header.paragraphs[0].text = sample.add("header", scribe.text(4))
    section.footer.paragraphs[0].text = sample.add("footer", scribe.text(4))
    for _ in range(chapters):
        one, two = scribe.label("Chapter"), scribe.label("Part")
        path = f"{one} › {two}"
        document.add_heading(sample.add("heading", one, one), 1)
        paragraph = document.add_paragraph(sample.add("paragraph", scribe.text(), one))
        for kind, kept in notes.items():
            kept.append(escape(sample.add(kind, scribe.text(), one)))
            paragraph._p.append(parse_xml(f'<w:r {_W}><w:{kind}Reference w:id="{len(kept) + 1}"/></w:r>'))
        document.add_heading(sample.add("heading", two, path), 2)
        for _ in range(2):
            document.add_paragraph(sample.add("list item", scribe.text(), path), style="List Number")
        paragraph = document.add_paragraph()
        box = _BOX.format(
            text=escape(sample.add("text box", scribe.text(), path)),
            alt=sample.add("alternative text", scribe.label("A map"), path),
        )
        paragraph._p.append(parse_xml(box))
        inserted, deleted = sample.add("inserted text", scribe.text(4), path), sample.leave_out(scribe.text(4))
        paragraph._p.append(
            parse_xml(f'<w:ins {_W} w:id="1" w:author="A"><w:r><w:t>{escape(inserted)}</w:t></w:r></w:ins>')
        )
        paragraph._p.append(
            parse_xml(f'<w:del {_W} w:id="2" w:author="A"><w:r><w:delText>{escape(deleted)}</w:delText></w:r></w:del>')
        )
        paragraph.add_run(sample.leave_out(scribe.text(4))).font.hidden = True
        document.add_comment(paragraph.runs, sample.leave_out(scribe.text(4)))
        table = document.add_table(3, 3)
        for row in table.rows:
            for cell in row.cells:
                cell.text = sample.add("cell", scribe.text(3), path)
        table.cell(2, 2).merge(table.cell(1, 2))
        inner = table.cell(0, 1).add_table(2, 2)
        for cell in inner._cells:
            cell.text = sample.add("cell of a nested table", scribe.text(3), path)
    for kind, kept in notes.items():
        body = "".join(
            f'<w:{kind} w:id="{number}">{_NOTE.format(w="", kind=kind, text=text)}</w:{kind}>'
            for number, text in enumerate(kept, 2)
        )
        content_type = f"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}s+xml"
        part = Part(PackURI(f"/word/{kind}s.xml"), content_type, f"<w:{kind}s {_W}>{body}</w:{kind}s>".encode())
        document.part.relate_to(part, getattr(RELATION, f"{kind}s".upper()))
    file = io.BytesIO()
    document.save(file)
    sample.data = file.getvalue()
    yield sample


# --- PowerPoint ----------------------------------------------------------------------------------------------


def slides(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("pptx"), Sample("PPTX", "a.pptx", title="The weir", pages=2 * chapters)
    show = pptx.Presentation()
    show.core_properties.title = "The weir"
    for number in range(1, 2 * chapters + 1, 2):
        slide = show.slides.add_slide(show.slide_layouts[1])
        title = scribe.label("Slide")
        slide.shapes.title.text = sample.add("title", title, title, number)
        body = slide.placeholders[1].text_frame
        body.text = sample.add("paragraph", scribe.text(), title, number)
        body.add_paragraph().text = sample.add("paragraph", scribe.text(), title, number)
        table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
        for cell in table.iter_cells():
            cell.text = sample.add("cell", scribe.text(3), title, number)
        group = slide.shapes.add_group_shape()
        box = group.shapes.add_textbox(Inches(1), Inches(4), Inches(2), Inches(1))
        box.text_frame.text = sample.add("text box", scribe.text(5), title, number)
        notes = sample.add("speaker notes", scribe.text(), title, number)
        slide.notes_slide.notes_text_frame.text = notes
        slide = show.slides.add_slide(show.slide_layouts[6])
        data = CategoryChartData()
        data.categories = [sample.add("chart", scribe.label("Year"), None, number + 1) for _ in range(2)]
        values = [scribe.number() for _ in range(2)]
        data.add_series(sample.add("chart", scribe.label("Turns"), None, number + 1), values)
        for value in values:
            sample.add("chart", str(value), None, number + 1)
        slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(1), Inches(4), Inches(3), data)
    file = io.BytesIO()
    show.save(file)
    sample.data = file.getvalue()
    yield sample


# --- spreadsheets --------------------------------------------------------------------------------------------

BEGAN = datetime(1924, 5, 1)


def _rows(scribe: Scribe, sample: Sample, count: int, heading: str | None) -> list[list[object]]:
    """A table with labels: a text, whole numbers, fractions and dates; the labelled values must be found."""
    labels = [scribe.label(name) for name in ("Unit", "Turns", "Share", "Since", "Remark")]
    rows: list[list[object]] = [list(labels)]
    for place in range(count):
        number = scribe.number()
        row: list[object] = [scribe.label("Name"), number, number / 1e4, BEGAN + timedelta(place), scribe.text(4)]
        shown = [row[0], str(number), f"{number / 1e4:.15g}", str((BEGAN + timedelta(place)).date()), row[4]]
        for label, text in zip(labels, shown, strict=True):
            sample.add("cell", f"{label}: {text}", heading)
        rows.append(row)
    return rows


def xlsx(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("xlsx"), Sample("XLSX", "a.xlsx", title="The weir")
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"default_date_format": "yyyy-mm-dd"}) as book:
        book.set_properties({"title": "The weir"})
        for number in range(chapters):
            name = f"Sheet {number + 1}"
            sheet = book.add_worksheet(name)
            title = sample.add("text above a table", scribe.label("Units"), name)
            sheet.write(1, 2, title)
            path = f"{name} › {title}"
            for place, row in enumerate(_rows(scribe, sample, 20, path)):
                sheet.write_row(3 + place, 2, row)
            sum_ = scribe.number()
            sheet.write_formula(24, 3, "=SUM(D5:D24)", None, sum_)
            sample.add("formula", str(sum_), path)
            group = scribe.label("Group")
            second = scribe.label("Second")
            sheet.write(27, 2, second)
            sheet.write_row(28, 2, ["Group", "Value"])
            sheet.merge_range(29, 2, 31, 2, group)
            for place in range(3):
                value = scribe.number()
                sheet.write(29 + place, 3, value)
                sample.add("merged cell", f"Group: {group}; Value: {value}", f"{name} › {second}")
            sheet.write_comment(5, 3, sample.add("note to a cell", scribe.text(4), name))
            hidden = book.add_worksheet(f"Hidden {number + 1}")
            hidden.write(0, 0, sample.leave_out(scribe.text()))
            hidden.hide()
    sample.data = file.getvalue()
    yield sample


def xls(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("xls"), Sample("XLS", "a.xls")
    book = xlwt.Workbook()
    dates = xlwt.easyxf(num_format_str="YYYY-MM-DD")
    for number in range(chapters):
        sheet = book.add_sheet(f"Sheet {number + 1}")
        for place, row in enumerate(_rows(scribe, sample, 20, f"Sheet {number + 1}")):
            for column, value in enumerate(row):
                sheet.write(place, column, value, *([dates] if isinstance(value, date) else []))
    hidden = book.add_sheet("Hidden")
    hidden.write(0, 0, sample.leave_out(scribe.text()))
    hidden.visibility = 1
    file = io.BytesIO()
    book.save(file)
    sample.data = file.getvalue()
    yield sample


_ODS = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 office:version="1.2"><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>
</office:document-content>"""


def ods(chapters: int) -> Iterator[Sample]:
    scribe, sample = Scribe("ods"), Sample("ODS", "a.ods")

    def cell(value: object) -> str:
        match value:
            case datetime():
                kind = f'office:value-type="date" office:date-value="{value.date()}"'
            case int() | float():
                kind = f'office:value-type="float" office:value="{value}"'
            case _:
                kind = 'office:value-type="string"'
        return f"<table:table-cell {kind}><text:p>{escape(str(value))}</text:p></table:table-cell>"

    tables = ""
    for number in range(chapters):
        name = f"Sheet {number + 1}"
        rows = "".join(
            f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in _rows(scribe, sample, 20, name)
        )
        tables += f'<table:table table:name="{name}">{rows}</table:table>'
    manifest = '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
    sample.data = zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "META-INF/manifest.xml": manifest,
            "content.xml": _ODS.format(tables=tables),
        }
    )
    yield sample


def csv(chapters: int) -> Iterator[Sample]:
    for name, separator, encoding in (("a.csv", ",", "utf-8"), ("b.csv", ";", "cp1252"), ("c.tsv", "\t", "utf-16")):
        scribe, sample = Scribe(name, LATIN), Sample("CSV, TSV", name)
        lines = []
        for row in _rows(scribe, sample, 20 * chapters, None):
            shown = [str(value.date()) if isinstance(value, datetime) else str(value) for value in row]
            quoted = '"' + shown[4].replace('"', '""') + '"'
            lines.append(separator.join([*shown[:4], quoted]))
        sample.data = "\r\n".join(lines).encode(encoding)
        yield sample


def json_(chapters: int) -> Iterator[Sample]:
    scribe = Scribe("json")
    sample = Sample("JSON, JSON Lines", "a.json")
    document: dict[str, object] = {"about": sample.add("value", scribe.text())}
    for _ in range(chapters):
        name = scribe.label("weir")
        document[name] = {"name": sample.add("value", scribe.text(), name), "units": _records(scribe, sample, name)}
    sample.data = json.dumps(document, indent=1).encode()
    yield sample
    lines = Sample("JSON, JSON Lines", "a.jsonl")
    records = _records(scribe, lines, None) * 1
    lines.data = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()
    yield lines


def _records(scribe: Scribe, sample: Sample, above: str | None) -> list[dict[str, object]]:
    heading = f"{above} › units" if above else None
    return [
        {
            "id": int(sample.add("value", str(scribe.number()), heading)),
            "text": sample.add("value", scribe.text(), heading),
            "place": {"river": sample.add("value", scribe.label("place.river: River")[13:], heading)},
            "tags": [sample.add("value", scribe.label("tag"), heading) for _ in range(2)],
        }
        for _ in range(10)
    ]


# --- EPUB ----------------------------------------------------------------------------------------------------

_CONTAINER = """<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
_OPF = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="{version}"><metadata
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The weir</dc:title></metadata><manifest>{items}</manifest>
<spine toc="toc">{spine}</spine></package>"""
_XHTML = """<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head>
<title/><style/><script/></head><body>{body}</body></html>"""


def epub(chapters: int) -> Iterator[Sample]:
    for version in (2, 3):
        scribe, sample = Scribe(f"epub {version}"), Sample("EPUB", f"epub{version}.epub", title="The weir")
        parts = {"mimetype": "application/epub+zip", "META-INF/container.xml": _CONTAINER}
        items, spine, entries = "", "", []
        for number in range(chapters):
            parts[f"OEBPS/page {number}.xhtml"] = _XHTML.format(body=_page(scribe, sample, 1))
            label = scribe.label("Of the contents")
            text = sample.add("paragraph", scribe.text(), label)
            parts[f"OEBPS/bare{number}.xhtml"] = _XHTML.format(body=f"<p>{escape(text)}</p>")
            entries.append((f"bare{number}.xhtml", label))
            for name in (f"page%20{number}", f"bare{number}"):
                items += f'<item id="i{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>'
                spine += f'<itemref idref="i{name}"/>'
        if version == 2:
            points = "".join(
                f"<navPoint><navLabel><text>{label}</text></navLabel><content src='{part}'/></navPoint>"
                for part, label in entries
            )
            doctype = (
                '<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">'
            )
            parts["OEBPS/toc.ncx"] = f'<?xml version="1.0"?>{doctype}<ncx><navMap>{points}</navMap></ncx>'
            items += '<item id="toc" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        else:
            links = "".join(f"<li><a href='{part}'>{label}</a></li>" for part, label in entries)
            parts["OEBPS/nav.xhtml"] = _XHTML.format(body=f"<nav><ol>{links}</ol></nav>")
            items += '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
        parts["OEBPS/book.opf"] = _OPF.format(version=version, items=items, spine=spine)
        sample.data = zipped(parts)
        yield sample


def zipped(parts: dict[str, str | bytes]) -> bytes:
    """A ZIP file of these parts; the first is not compressed, as some formats want it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, (name, content) in enumerate(parts.items()):
            archive.writestr(name, content, zipfile.ZIP_STORED if place == 0 else None)
    return file.getvalue()


WRITERS: tuple[Callable[[int], Iterator[Sample]], ...] = (
    pdf, word, slides, xlsx, xls, ods, csv, json_, epub, html, markdown, text,
)  # fmt: skip
