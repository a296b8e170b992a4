"""Behaviour of every extractor."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

from adapters.documents.extract import FileExtractor
from adapters.sandbox.child import Sandbox
from handlers.ports.documents import Extractor, Text, Unreadable


@pytest.fixture(scope="module")
async def extractor(sandbox: Sandbox) -> AsyncIterator[Extractor]:
    async with FileExtractor(sandbox) as files:
        yield files


def pdf(*pages: str, password: str | None = None) -> bytes:
    """A PDF with these lines on its pages."""
    file = io.BytesIO()
    encryption = StandardEncryption(password) if password else None
    canvas = Canvas(file, pagesize=(595, 842), invariant=1, encrypt=encryption)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 720 - 12 * number, line)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


async def refusal(extractor: Extractor, data: bytes, media_type: str, name: str = "file") -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        await extractor.extract("acme", data, media_type, name)
    assert str(caught.value).endswith((".", "?"))
    return caught.value


def whole(text: Text) -> str:
    return "\n\n".join(block.text for block in text.blocks)


@pytest.mark.parametrize(
    ("data", "media_type", "name"),
    [
        (b"Water runs.", "text/plain", "a.txt"),
        (b"Water runs.", "application/octet-stream", "a.TXT"),
        (b"**Water** runs.", "text/markdown", "a.md"),
        (b"<p>Water <b>runs</b>.", "text/html; charset=utf-8", "a"),
        (pdf("Water runs."), "application/pdf", "a.pdf"),
        (pdf("Water runs."), "", "../../etc/a.pdf"),
        (pdf("Water runs."), "text/plain", "a.pdf.txt"),
        (b"Water runs.,", "text/csv", "a"),
        (b'"Water runs."', "application/json", "a"),
        (b'"Water runs."', "application/vnd.weir+json", "a"),
    ],
)
async def test_text_comes_out_of_every_kind(extractor: Extractor, data: bytes, media_type: str, name: str) -> None:
    text = await extractor.extract("acme", data, media_type, name)
    assert whole(text) == "Water runs."
    assert text.characters == len("Water runs.")
    assert text.pages == (1 if "pdf" in media_type + name else None)


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html", "application/pdf"])
@pytest.mark.parametrize("data", [b"", b" \n\t\r\n", b"\0\0\0", b"\xef\xbb\xbf", b"\xff\xfe"])
async def test_a_file_without_content_is_empty(extractor: Extractor, media_type: str, data: bytes) -> None:
    assert (await refusal(extractor, data, media_type)).code == "empty_file"


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("application/zip", "a.zip"),
        ("", "a.doc"),
        ("", "pdf"),
        ("application/octet-stream", ""),
    ],
)
async def test_other_kinds_are_read_only_if_they_are_text(extractor: Extractor, media_type: str, name: str) -> None:
    text = await extractor.extract("acme", b"Water runs.", media_type, name)
    assert [block.text for block in text.blocks] == ["Water runs."]
    assert (await refusal(extractor, b"Water\0\1\2 runs.", media_type, name)).code == "unsupported_type"


@pytest.mark.parametrize("media_type", ["image/png", "audio/mpeg"])
async def test_images_and_sounds_are_not_read(extractor: Extractor, media_type: str) -> None:
    assert (await refusal(extractor, b"Water runs.", media_type, "a")).code == "unsupported_type"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"Water runs.", "application/pdf"),
        (pdf("Water runs.")[:300], "application/pdf"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 40, "application/pdf"),
        (b"Water runs.", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "text/markdown"),
        (bytes(range(32)) * 100, "text/html"),
    ],
)
async def test_bytes_of_another_kind_are_broken(extractor: Extractor, data: bytes, media_type: str) -> None:
    assert (await refusal(extractor, data, media_type)).code == "broken_file"


async def test_an_encrypted_file_says_so(extractor: Extractor) -> None:
    assert (await refusal(extractor, pdf("Secret.", password="x"), "application/pdf")).code == "encrypted_file"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (pdf(""), "application/pdf"),
        (b"<html><head><title>T</title></head><body><script>let water</script></body></html>", "text/html"),
        (b"<!-- nothing -->", "text/markdown"),
    ],
)
async def test_a_file_without_text_says_so(extractor: Extractor, data: bytes, media_type: str) -> None:
    assert (await refusal(extractor, data, media_type)).code == "no_text"


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html"])
@pytest.mark.parametrize(
    "words", ["Wasser läuft über", "水は流れる。止まらない。", "الماء يجري في القناة.", "מים זורמים", "🌊 e\u0301"]
)
async def test_all_scripts_come_through(extractor: Extractor, media_type: str, words: str) -> None:
    assert whole(await extractor.extract("acme", words.encode(), media_type, "")) == words


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html"])
async def test_no_nul_comes_through(extractor: Extractor, media_type: str) -> None:
    text = await extractor.extract("acme", b"Wa\0ter \0runs\0 from here to the sea.", media_type, "")
    assert whole(text) == "Water runs from here to the sea."


async def test_three_hundred_pages(extractor: Extractor) -> None:
    text = await extractor.extract(
        "acme", pdf(*(f"This is what page {n} says." for n in range(1, 301))), "application/pdf", ""
    )
    assert text.pages == 300
    assert [(block.page, block.text) for block in text.blocks] == [
        (number, f"This is what page {number} says.") for number in range(1, 301)
    ]
