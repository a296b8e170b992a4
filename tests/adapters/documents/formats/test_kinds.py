"""The kind of a file is what it is, under any name."""

from __future__ import annotations

import io
import zipfile

import docx as writing
import pytest

from adapters.documents.formats.child import answer
from adapters.documents.formats.kinds import kind_of, readable
from tests.adapters.documents.formats.corpus import zipped
from tests.adapters.documents.formats.hostile import good


def texts(name: str, data: bytes) -> list[str]:
    assert readable(data)
    found = answer(data, kind=kind_of("", name), plugin=None, media_type="", name=name)
    assert "code" not in found, found
    return [piece.text for piece in found["pieces"]]


@pytest.mark.parametrize(
    "name", ["a.yaml", "a.toml", "a.ini", "a.xml", "a.go", "a.properties", "a.py", "a.rst", "a.sql", "a.ts", "a"]
)
def test_text_by_another_name_is_text(name: str) -> None:
    assert texts(name, b"opens: six\nThe gate opens at six.\n") == ["opens: six\nThe gate opens at six."]
    assert texts(name, "<größe>水</größe>\n".encode()) == ["<größe>水</größe>"]
    assert texts(name, "wide text".encode("utf-16")) == ["wide text"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(range(256)) * 10,
        b"{\\rtf1 text}",
        b"\x1f\x8b\x08text",
        b"MZ\x90\0 text",
        b"\0\1\2\3" * 50,
        b"",
    ],
)
def test_other_bytes_by_another_name_are_no_text(data: bytes) -> None:
    assert not readable(data)
    found = answer(data, kind=None, plugin=None, media_type="", name="a.bin")
    assert found["code"] in ("unsupported_type", "empty_file")


def test_mdx_is_markdown() -> None:
    assert texts("a.mdx", b"# One\n\n[x](https://example.org)") == ["One", "x (https://example.org)"]


@pytest.mark.parametrize("types", [True, False])
def test_an_office_document_is_what_its_main_part_is(types: bool) -> None:
    file = io.BytesIO()
    document = writing.Document()
    document.add_paragraph("The gate opens at six.")
    document.save(file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if not types:
        del parts["[Content_Types].xml"]
    moved = {name.replace("word/", "doc/"): data.replace(b"word/", b"doc/") for name, data in parts.items()}
    assert texts("a.docx", zipped(moved)) == ["The gate opens at six."]
    assert texts("a.xlsx", zipped(moved)) == ["The gate opens at six."]


def test_the_names_of_streams_of_old_spreadsheets_may_differ_in_case() -> None:
    data = good()["a.xls"].data
    for name in ("WORKBOOK", "WorkBook"):
        changed = data.replace("Workbook".encode("utf-16-le"), name.encode("utf-16-le"))
        found = answer(changed, kind="sheets", plugin=None, media_type="", name="a.xls")
        assert found.get("pieces"), found


def test_a_pdf_without_its_head_is_a_pdf() -> None:
    data = good()["a.pdf"].data
    assert texts("a.pdf", data) == texts("a.pdf", data.replace(b"%PDF-1.", b"%pdf 1.", 1))


MAIL = (
    "From: Ann <a@example.org>\r\nTo: b@example.org\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n'
    'Content-Type: multipart/alternative; boundary="y"\r\n\r\n--y\r\n{body}\r\n--y--\r\n--x\r\n'
    'Content-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--x--\r\n"
)
HEAD = "From: Ann <a@example.org>\nTo: b@example.org\nSubject: Grüße"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            "Die Schleuse =C3=B6ffnet um sechs=\r\n Uhr.\r\n--y\r\nContent-Type: text/html\r\n\r\n<p>other</p>",
            [HEAD, "Die Schleuse öffnet um sechs Uhr."],
        ),
        (
            "Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            "<h1>Gr=F6=DFe</h1><p>The <b>gate</b></p>",
            [HEAD, "Größe", "The gate"],
        ),
        ("Content-Type: text/plain; charset=none\r\n\r\nThe gate", [HEAD, "The gate"]),
    ],
)
def test_mails_are_read_as_their_readers_see_them(body: str, found: list[str]) -> None:
    assert texts("a.eml", MAIL.format(body=body).encode()) == found


def test_saved_pages_are_read_and_other_text_is_no_mail() -> None:
    page = b"MIME-Version: 1.0\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\nPHA+VGhlIGdhdGU8L3A+\n"
    assert texts("a.mht", page) == ["The gate"]
    found = answer(b"no mail at all", kind="mail", plugin=None, media_type="", name="a.eml")
    assert found["code"] in ("broken_file", "no_text")
