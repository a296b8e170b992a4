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
