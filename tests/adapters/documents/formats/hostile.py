"""Files that are broken, locked, mislabelled or meant to do harm, each with what may come of it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import xlsxwriter
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from tests.adapters.documents.formats.corpus import Sample, samples, zipped

READ = "read"
"""In place of a code: the file is read, and is harmless."""

SECRET = "root:x:"
"""Text in files of the machine that no document may bring in."""

_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
_BOMB = f'<!DOCTYPE x [<!ENTITY l0 "ha">{_LAUGHS}]>'
_FILE = '<!DOCTYPE x [<!ENTITY l11 SYSTEM "file:///etc/passwd">]>'
_DOCUMENT = (
    '{doctype}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{body}'
    "</w:body></w:document>"
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


class Hostile(NamedTuple):
    name: str
    data: bytes
    ends: tuple[str, ...]
    """The codes that it may end with."""


@cache
def good() -> dict[str, Sample]:
    """Sound documents, by their names."""
    return {sample.name: sample for sample in samples(1)}


def files() -> Iterator[Hostile]:
    yield from _locked()
    yield from _damaged()
    yield from _mislabelled()
    yield from _zips()
    yield from _markup()
    yield from _swollen()
    yield from _vast()


def _locked() -> Iterator[Hostile]:
    locked = ("encrypted_file",)
    file = io.BytesIO()
    canvas = Canvas(file, encrypt=StandardEncryption("secret"))
    canvas.drawString(72, 700, "Text.")
    canvas.save()
    yield Hostile("locked.pdf", file.getvalue(), locked)
    for suffix in ("docx", "pptx", "xlsx"):
        streams = "EncryptionInfo".encode("utf-16-le") + bytes(64) + "EncryptedPackage".encode("utf-16-le")
        yield Hostile(f"locked.{suffix}", _OLE + streams + bytes(4096), locked)
    data = good()["a.xls"].data
    start = data.index(b"\x09\x08\x10\0\0\x06\x05\0")
    yield Hostile("locked.xls", data[: start + 20] + b"\x2f\0" + data[start + 22 :], locked)
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    parts = {"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "META-INF/manifest.xml": manifest}
    yield Hostile("locked.ods", zipped({**parts, "content.xml": b"\x8f\x11\x7a"}), locked)
    lock = "<encryption><EncryptedData><CipherData><CipherReference URI='OEBPS/page%200.xhtml'/></CipherData>"
    lock += "</EncryptedData></encryption>"
    yield Hostile("locked.epub", changed(good()["epub3.epub"].data, {"META-INF/encryption.xml": lock}), locked)
    flagged = bytearray(good()["a.docx"].data)
    for place, _ in entries(bytes(flagged)):
        flagged[place + 8] |= 1
    yield Hostile("zip-locked.docx", bytes(flagged), locked)


def _damaged() -> Iterator[Hostile]:
    for name in ("a.docx", "a.pptx", "a.xlsx", "a.ods", "epub3.epub", "a.json"):
        data = good()[name].data
        yield Hostile(f"truncated-{name}", data[: len(data) * 2 // 3], ("broken_file",))
    lines = good()["a.jsonl"].data
    yield Hostile("truncated-a.jsonl", lines[: len(lines) * 2 // 3], (READ,))
    yield Hostile("truncated-a.pdf", good()["a.pdf"].data[:700], ("broken_file",))
    yield Hostile("truncated-a.xls", good()["a.xls"].data[:3000], ("broken_file",))
    data = bytearray(good()["a.docx"].data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.getinfo("word/document.xml")
    place = entry.header_offset + 60 + entry.compress_size // 2
    data[place : place + 40] = bytes(40)
    yield Hostile("flipped.docx", bytes(data), ("broken_file",))
    yield Hostile("without-its-document.docx", without(good()["a.docx"].data, "word/document.xml"), ("broken_file",))
    yield Hostile("without-a-page.epub", without(good()["epub3.epub"].data, "OEBPS/bare0.xhtml"), (READ,))
    yield Hostile("empty.docx", b"", ("empty_file",))
    yield Hostile(
        "no-text.docx",
        zipped({"word/document.xml": _DOCUMENT.format(doctype="", body="<w:p/>"), **_TYPES}),
        ("no_text",),
    )
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        book.add_worksheet()
    yield Hostile("no-text.xlsx", file.getvalue(), ("no_text",))


_TYPES = {"[Content_Types].xml": "<Types/>"}


def _mislabelled() -> Iterator[Hostile]:
    for name, said in (("a.docx", "pdf"), ("a.pdf", "docx"), ("a.xlsx", "docx"), ("a.xls", "xlsx"), ("a.pptx", "txt")):
        yield Hostile(f"{name}.{said}", good()[name].data, (READ,))
    yield Hostile("a.docx-without-a-suffix", good()["a.docx"].data, (READ,))
    yield Hostile("table.xls", good()["c.tsv"].data, (READ,))
    yield Hostile("page.xls", b"<html><table><tr><td>A table that calls itself XLS</table>", (READ,))
    yield Hostile("words.docx", b"Water runs.", ("broken_file",))
    yield Hostile("words.xlsx", b"Water runs.", ("broken_file",))
    yield Hostile("words.json", b"Water runs.", ("broken_file",))
    yield Hostile("image.pptx", b"\x89PNG\r\n\x1a\n" + bytes(100), ("broken_file",))
    yield Hostile("archive.docx", zipped({"a.txt": "Water runs."}), ("broken_file",))
    yield Hostile("old.docx", _OLE + "WordDocument".encode("utf-16-le") + bytes(4096), ("unsupported_type",))
    text = {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<x/>"}
    yield Hostile("open.docx", zipped(text), ("unsupported_type",))
    yield Hostile("archive.zip", zipped({"a.txt": "Water runs."}), ("unsupported_type",))


def _zips() -> Iterator[Hostile]:
    data = resized(good()["a.docx"].data, "word/document.xml", 2**31)
    yield Hostile("declares-two-gigabytes.docx", data, ("too_large",))
    for name, part in (("a.docx", "word/document.xml"), ("a.xlsx", "xl/worksheets/sheet1.xml")):
        big = changed(good()[name].data, {part: b" " * 30_000_000})
        yield Hostile(f"declares-little-{name}", resized(big, part, 1000), ("broken_file", "too_large"))
    yield Hostile("many-entries.docx", crowded(good()["a.docx"].data, 100_001), ("too_large",))
    yield Hostile("overlapping.docx", overlapping(good()["a.docx"].data), ("broken_file",))
    inner = zipped({"bomb": bytes(10_000_000)})
    for _ in range(4):
        inner = zipped({f"{number}.zip": inner for number in range(5)})
    yield Hostile("nested.docx", changed(good()["a.docx"].data, {"word/embeddings/bomb.zip": inner}), (READ,))
    yield Hostile("nested.zip.docx", inner, ("broken_file",))
    yield Hostile("climbing.docx", changed(good()["a.docx"].data, {"../../../etc/passwd": "x"}), (READ,))


def _markup() -> Iterator[Hostile]:
    paragraph = "<w:p><w:r><w:t>&l11;</w:t></w:r></w:p>"
    for name, doctype in (("laughs", _BOMB), ("external", _FILE)):
        document = _DOCUMENT.format(doctype=doctype, body=paragraph)
        yield Hostile(f"{name}.docx", changed(good()["a.docx"].data, {"word/document.xml": document}), ("broken_file",))
        wide = document.encode("utf-16")
        yield Hostile(
            f"{name}-in-utf-16.docx", changed(good()["a.docx"].data, {"word/document.xml": wide}), ("broken_file",)
        )
        slide = f"{doctype}<p:sld xmlns:p='p'><p:cSld/>&l11;</p:sld>"
        yield Hostile(
            f"{name}.pptx", changed(good()["a.pptx"].data, {"ppt/slides/slide1.xml": slide}), ("broken_file", READ)
        )
        strings = f"{doctype}<sst><si><t>&l11;</t></si></sst>"
        file = changed(good()["a.xlsx"].data, {"xl/sharedStrings.xml": strings})
        yield Hostile(f"{name}.xlsx", file, ("broken_file", "no_text", READ))
        page = f"{doctype}<html><body><p>&l11; Water runs.</p></body></html>"
        file = changed(good()["epub3.epub"].data, {"OEBPS/bare0.xhtml": page})
        yield Hostile(f"{name}.epub", file, (READ,))
    for name, part, around, within in (
        ("a.docx", "word/document.xml", "<document><body>|</body></document>", "<sdt>|</sdt>"),
        ("a.docx", "docProps/core.xml", "|", "<a>|</a>"),
        ("a.pptx", "ppt/slides/slide1.xml", "<sld><cSld>|</cSld></sld>", "<grpSp>|</grpSp>"),
        ("a.xlsx", "xl/worksheets/sheet1.xml", "<worksheet><sheetData>|</sheetData></worksheet>", "<row>|</row>"),
        ("epub3.epub", "OEBPS/nav.xhtml", "<nav><ol>|</ol></nav>", "<li><ol>|</ol></li>"),
    ):
        (head, tail), (opened, closed) = around.split("|"), within.split("|")
        depth = 10_000 if part.endswith("html") else 100_000
        nested = head + opened * depth + closed * depth + tail
        file = changed(good()[name].data, {part: nested})
        yield Hostile(f"deep-{part.rpartition('/')[2]}-{name}", file, ("broken_file", "no_text", READ))
    yield Hostile("deep.json", b"[" * 1_000_000, ("broken_file",))
    yield Hostile("deep-but-sound.json", b'{"a":' * 900 + b"1" + b"}" * 900, ("broken_file", READ))
    yield Hostile("digits.json", b"[" + b"9" * 1_000_000 + b"]", (READ,))
    yield Hostile("unclosed.xhtml", b"<?xml version='1.0'?>" + b"<a" * 500_000 + b"a" * 2_000_000, ("no_text", READ))
    note = '<w:footnote w:id="2"><w:p><w:r><w:t>Again.</w:t><w:footnoteReference w:id="2"/></w:r></w:p></w:footnote>'
    notes = f'<w:footnotes xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">{note}</w:footnotes>'
    yield Hostile("a-note-to-itself.docx", changed(good()["a.docx"].data, {"word/footnotes.xml": notes}), (READ,))


def _swollen() -> Iterator[Hostile]:
    text = b"<w:p><w:r><w:t>" + b"water " * 20_000_000 + b"</w:t></w:r></w:p>"
    head, tail = _DOCUMENT.format(doctype="", body="|").encode().split(b"|")
    yield Hostile("swollen.docx", zipped({**_TYPES, "word/document.xml": head + text + tail}), ("too_large",))
    cells = "".join(
        f'<row r="{row}"><c r="{name}"><v>7</v></c></row>' for row, name in ((1, "A1"), (2**20, "XFD1048576"))
    )
    sheet = f"<worksheet><sheetData>{cells}</sheetData></worksheet>"
    far = changed(good()["a.xlsx"].data, {"xl/worksheets/sheet1.xml": sheet})
    yield Hostile("two-cells-far-apart.xlsx", far, (READ,))
    yield Hostile("commas.csv", b"," * 5_000_000 + b"x", ("too_large", READ))
    yield Hostile("unclosed-quote.csv", b'a,b\n"' + b"x,\n" * 700_000, ("too_large", READ))


def _vast() -> Iterator[Hostile]:
    """Ten thousand pages of each kind that has pages, or as much."""
    yield Hostile("10000-pages.pdf", pdf(10_000), (READ,))
    yield Hostile(
        "two-billion-pages.pdf", pdf(3).replace(b"/Count 3", b"/Count 2000000000"), (READ, "broken_file", "no_text")
    )
    yield Hostile(
        "pages-in-a-ring.pdf", pdf(3).replace(b"/Kids [3 0 R", b"/Kids [2 0 R"), (READ, "broken_file", "no_text")
    )
    paragraph = "<w:p><w:r><w:t>Water runs.</w:t></w:r></w:p>" * 2 + '<w:p><w:r><w:br w:type="page"/></w:r></w:p>'
    document = _DOCUMENT.format(doctype="", body=paragraph * 10_000)
    yield Hostile("10000-pages.docx", zipped({**_TYPES, "word/document.xml": document}), (READ,))
    yield Hostile("10000-slides.pptx", slides(10_000), (READ,))
    rows = "".join(f"Turbine {number},{number * 7},1924-05-01\n" for number in range(100_000))
    yield Hostile("100000-rows.csv", f"Unit,Turns,Since\n{rows}".encode(), (READ,))


# --- ways to make them ---------------------------------------------------------------------------------------


def changed(data: bytes, parts: dict[str, str | bytes]) -> bytes:
    """A ZIP file with some parts put in place of those of their names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({**{name: archive.read(name) for name in archive.namelist()}, **parts})


def without(data: bytes, part: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({name: archive.read(name) for name in archive.namelist() if name != part})


def entries(data: bytes) -> Iterator[tuple[int, str]]:
    """Where the entries of a ZIP file's directory begin, with the names of their parts."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        place = archive.start_dir
    while data[place : place + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<HHH", data, place + 28)
        yield place, data[place + 46 : place + 46 + name].decode()
        place += 46 + name + extra + comment


def resized(data: bytes, part: str, size: int) -> bytes:
    """A ZIP file that says another size of a part than it has."""
    found = bytearray(data)
    for place, name in entries(data):
        if name == part:
            (local,) = struct.unpack_from("<I", data, place + 42)
            struct.pack_into("<I", found, place + 24, size)
            struct.pack_into("<I", found, local + 22, size)
    return bytes(found)


def overlapping(data: bytes) -> bytes:
    """A ZIP file of whose entries the second lies within the first."""
    found = bytearray(data)
    _, (second, _), *_ = entries(data)
    struct.pack_into("<I", found, second + 42, 4)
    return bytes(found)


def crowded(data: bytes, count: int) -> bytes:
    """A ZIP file whose directory repeats one entry `count` times."""
    (place, _), (after, _), *_ = entries(data)
    end = data.rindex(b"PK\x05\x06")
    more = data[place:after] * count
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, 65535, 65535, end - place + len(more))
    return data[:end] + more + bytes(tail)


def pdf(pages: int) -> bytes:
    """A PDF whose pages all show the same line."""
    content = b"BT /F1 12 Tf 72 700 Td (Water runs.) Tj ET"
    kids = b" ".join(b"%d 0 R" % (3 + number) for number in range(pages))
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R"
    page += b" /Resources << /Font << /F1 %d 0 R >> >> >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, pages),
        *([page % (3 + pages, 4 + pages)] * pages),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        font,
    ]
    data, places = bytearray(b"%PDF-1.7\n"), []
    for number, each in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(data))
    return bytes(data) + head + table + tail


def slides(count: int) -> bytes:
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    ids = "".join(f'<sldId id="{256 + number}" r:id="r{number}"/>' for number in range(count))
    relations = "".join(
        f'<Relationship Id="r{number}" Type="{relation}/slide" Target="slides/slide{number}.xml"/>'
        for number in range(count)
    )
    slide = (
        "<p:sld xmlns:p='p' xmlns:a='a'><p:cSld><p:spTree><p:sp><p:txBody><a:p><a:r><a:t>Water runs.</a:t></a:r></a:p>"
    )
    slide += "</p:txBody></p:sp></p:spTree></p:cSld></p:sld>"
    return zipped(
        {
            **_TYPES,
            "ppt/presentation.xml": f"<presentation xmlns:r='{relation}'><sldIdLst>{ids}</sldIdLst></presentation>",
            "ppt/_rels/presentation.xml.rels": f"<Relationships>{relations}</Relationships>",
            **{f"ppt/slides/slide{number}.xml": slide for number in range(count)},
        }
    )
