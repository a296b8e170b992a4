"""Files: what becomes of their structure, and of processes that go astray."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

import psutil
import pytest
from reportlab.lib.styles import getSampleStyleSheet  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]
from reportlab.platypus import Paragraph, SimpleDocTemplate  # type: ignore[import-untyped]

from adapters.documents import extract
from adapters.documents.extract import FileExtractor
from adapters.sandbox.child import Sandbox
from handlers.ports.documents import Block, Text, Unreadable


@pytest.fixture(scope="module")
async def files(sandbox: Sandbox) -> AsyncIterator[FileExtractor]:
    async with FileExtractor(sandbox) as files:
        yield files


def reader(pid: int) -> psutil.Process:
    """The process that reads, in the sandbox that this process makes."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)][-1]


def children() -> set[int]:
    """The processes that were started here and live."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found


def blocks(text: Text) -> list[tuple[str, str | None]]:
    return [(block.text, block.heading) for block in text.blocks]


# --- plain text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        "Größe – 3 µm".encode(),
        b"\xef\xbb\xbf" + "Größe – 3 µm".encode(),
        "Größe – 3 µm".encode("utf-16"),
        b"\xfe\xff" + "Größe – 3 µm".encode("utf-16-be"),
        "Größe – 3 µm".encode("utf-16-le"),
        "Größe – 3 µm".encode("cp1252"),
    ],
)
async def test_encodings(files: FileExtractor, data: bytes) -> None:
    assert blocks(await files.extract("acme", data, "text/plain", "")) == [("Größe – 3 µm", None)]


async def test_bytes_that_no_encoding_has_are_kept_as_signs(files: FileExtractor) -> None:
    assert blocks(await files.extract("acme", b"a\x81\xff", "text/plain", "")) == [("a\x81ÿ", None)]


async def test_a_broken_paragraph_is_whole_again_and_a_list_stays(files: FileExtractor) -> None:
    lines = (
        "The weir was built of stone from the quarry upstream,",
        "which was floated down on rafts in the year 1824,",
        "by men.",
    )
    listed = "Monday   3 machines\nTuesday   2 machines"
    text = await files.extract("acme", ("\n".join(lines) + f"\r\n \r\n\r\n{listed}\n").encode(), "text/plain", "")
    assert [block.text for block in text.blocks] == [" ".join(lines), listed]


# --- Markdown ------------------------------------------------------------------------------------------------


async def test_markdown(files: FileExtractor) -> None:
    source = """\
---
title: The weir
---
Before.

# One *great* `weir`

A [link](http://example.org/x) and
a soft  break; `a_b` and 2 * 3 * 4 &amp; <b>bold</b>.

## Two

- first
  still first
  - inner
7. seventh

```python
# not a heading

def f():
    return 1
```

| Unit | Power |
|------|-------|
| Agnes | 180 kW |

Setext
======

> Quoted.

<div>Some <i>HTML</i></div>
"""
    text = await files.extract("acme", source.encode(), "text/markdown", "")
    one, two = "One great weir", "One great weir › Two"
    assert text.title == "The weir"
    assert blocks(text) == [
        ("Before.", None),
        ("One great weir", one),
        ("A link (http://example.org/x) and a soft  break; a_b and 2 * 3 * 4 & bold.", one),
        ("Two", two),
        ("- first still first", two),
        ("- inner", two),
        ("7. seventh", two),
        ("# not a heading\n\ndef f():\n    return 1", two),
        ("Unit: Agnes; Power: 180 kW", two),
        ("Setext", "Setext"),
        ("Quoted.", "Setext"),
        ("Some HTML", "Setext"),
    ]


# --- HTML ----------------------------------------------------------------------------------------------------


async def test_html(files: FileExtractor) -> None:
    source = """\
<html><head><title> The
 weir </title><style>p {}</style></head><body><nav><a>Home</a></nav>
<script>var water</script><h1>The <em>weir</em></h1>loose text<p>One&nbsp;two<br>three &lt;3</p>
<h2>Parts</h2><ul><li>first<li><p>second</p><ol><li>inner</ol></ul>
<table><thead><tr><th>Unit</th><th>Power</th></tr></thead><tr><td>Agnes</td><td><p>180</p><p>kW</p></td></tr></table>
<pre>a  b
  c</pre><div hidden>unseen</div><p><img alt="A map"></p><h1>End</h1>
"""
    text = await files.extract("acme", source.encode(), "text/html", "")
    top, parts = "The weir", "The weir › Parts"
    assert text.title == "The weir"
    assert blocks(text) == [
        ("The weir", top),
        ("loose text", top),
        ("One two\nthree <3", top),
        ("Parts", parts),
        ("- first", parts),
        ("- second", parts),
        ("1. inner", parts),
        ("Unit: Agnes; Power: 180 kW", parts),
        ("a  b\n  c", parts),
        ("A map", parts),
        ("End", "End"),
    ]


async def test_html_in_an_encoding_that_it_declares(files: FileExtractor) -> None:
    source = "<meta charset='shift_jis'><p>水は流れる</p>".encode("shift_jis")
    assert blocks(await files.extract("acme", source, "text/html", "")) == [("水は流れる", None)]


async def test_html_nested_deeper_than_any_stack(files: FileExtractor) -> None:
    source = b"<div>" * 20_000 + b"deep" + b"</div>" * 20_000
    assert blocks(await files.extract("acme", source, "text/html", "")) == [("deep", None)]


# --- PDF -----------------------------------------------------------------------------------------------------


def typeset(*paragraphs: str, footer: str = "") -> bytes:
    """A PDF of paragraphs (`# ` begins a heading) set on small pages with their number at the foot."""
    styles = getSampleStyleSheet()
    file = io.BytesIO()
    story = [
        Paragraph(text.removeprefix("# "), styles["Heading1" if text.startswith("# ") else "BodyText"])
        for text in paragraphs
    ]

    def foot(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.drawString(72, 20, f"{footer} {document.page}")

    SimpleDocTemplate(file, pagesize=(300, 400), invariant=1).build(story, onFirstPage=foot, onLaterPages=foot)
    return file.getvalue()


def drawn(*lines: str) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, invariant=1)
    for number, line in enumerate(lines):
        canvas.drawString(72, 700 - 14 * number, line)
    canvas.save()
    return file.getvalue()


async def test_pdf_paragraphs_are_whole_and_running_titles_are_kept_once(files: FileExtractor) -> None:
    first = " ".join(f"Sentence {number} of the first paragraph is here." for number in range(1, 12))
    second = " ".join(f"Sentence {number} of the second goes on overleaf." for number in range(1, 30))
    text = await files.extract(
        "acme", typeset("# The weir", first, second, footer="Handbook, page"), "application/pdf", ""
    )
    assert text.pages
    assert text.pages > 2
    assert [block.text for block in text.blocks[:3]] == ["The weir", first, "Handbook, page 1"]
    assert " ".join(block.text for block in text.blocks[3:]) == second
    assert all(block.text.endswith("overleaf.") for block in text.blocks[3:])
    assert text.warnings == [f"{text.pages - 1} lines taken for running titles"]
    assert [block.page for block in text.blocks] == sorted(block.page or 0 for block in text.blocks)
    assert {block.heading for block in text.blocks} == {"The weir"}


async def test_pdf_numbered_headings_at_the_head_of_each_page_are_kept(files: FileExtractor) -> None:
    pages = [
        part for n in range(1, 5) for part in (f"# Chapter {n}", f"What chapter {n} says, it says at length. " * 12)
    ]
    text = await files.extract("acme", typeset(*pages, footer="Page"), "application/pdf", "")
    assert [block.text for block in text.blocks if block.text == block.heading] == [
        f"Chapter {number}" for number in range(1, 5)
    ]
    assert [block.text for block in text.blocks if "Page" in block.text] == ["Page 1"]


async def test_pdf_hyphens_at_line_ends_are_repaired(files: FileExtractor) -> None:
    data = drawn(
        "The coopera-",
        "tive owns a second-",
        "hand turbine. The second-hand tur-",
        "bine runs from 2024-",
        "2026 on.",
    )
    text = await files.extract("acme", data, "application/pdf", "")
    assert " ".join(block.text for block in text.blocks) == (
        "The cooperative owns a second-hand turbine. The second-hand turbine runs from 2024- 2026 on."
    )


async def test_pdf_title(files: FileExtractor) -> None:
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.setTitle("Annual  report")
    canvas.drawString(72, 700, "Text.")
    canvas.save()
    assert await files.extract("acme", file.getvalue(), "application/pdf", "") == Text(
        [Block("Text.", 1)], 1, "Annual report"
    )


# --- the processes -------------------------------------------------------------------------------------------


async def test_a_slow_file_is_given_up_and_the_next_one_is_read(sandbox: Sandbox) -> None:
    async with FileExtractor(sandbox, children=1, seconds=2.0) as files:
        with pytest.raises(Unreadable) as caught:
            await files.extract("acme", b"[" * 3_000_000, "text/markdown", "")
        assert caught.value.code == "too_slow"
        assert blocks(await files.extract("acme", b"quick", "text/plain", "")) == [("quick", None)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html"])
async def test_a_file_that_takes_too_much_memory_is_given_up_and_the_next_one_is_read(
    sandbox: Sandbox, media_type: str
) -> None:
    async with FileExtractor(sandbox, children=1, memory=200 * 2**20) as files:
        with pytest.raises(Unreadable) as caught:
            await files.extract("acme", "<p>Wasser läuft.\n\n".encode() * 4_000_000, media_type, "")
        assert caught.value.code == "too_large"
        assert blocks(await files.extract("acme", b"small", "text/plain", "")) == [("small", None)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
async def test_a_pdf_that_swells_is_given_up_and_the_next_one_is_read(sandbox: Sandbox) -> None:
    stream = zlib.compress(zlib.compress(b"BT /F1 9 Tf (water) Tj ET\n" * 20_000_000, 9), 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data = b"%PDF-1.7\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % each for each in enumerate(objects, 1))
    async with FileExtractor(sandbox, children=1, seconds=20, memory=300 * 2**20) as files:
        with pytest.raises(Unreadable) as caught:
            await files.extract("acme", data + b"trailer << /Root 1 0 R /Size 6 >>\n", "application/pdf", "")
        assert caught.value.code in ("too_large", "broken_file", "too_slow", "no_text")
        assert blocks(await files.extract("acme", b"small", "text/plain", "")) == [("small", None)]


async def test_a_child_that_was_killed_is_replaced(sandbox: Sandbox) -> None:
    async with FileExtractor(sandbox, children=1) as files:
        await files.extract("acme", b"one", "text/plain", "")
        (child,) = files.pids
        os.kill(child, signal.SIGKILL)
        while child in children():
            await asyncio.sleep(0.01)
        assert blocks(await files.extract("acme", b"two", "text/plain", "")) == [("two", None)]
        assert files.pids != [child]


async def test_a_child_knows_only_what_it_needs(sandbox: Sandbox) -> None:
    async with FileExtractor(sandbox, children=1) as files:
        await files.extract("acme", drawn("Text."), "application/pdf", "")
        child = reader(*files.pids)
        loaded = {mapped.path for mapped in child.memory_maps()}
        assert not [path for path in loaded if "torch" in path or "numpy" in path or "tokenizers" in path]
        assert child.memory_info().rss < 100 * 2**20
        assert not {name for name in child.environ() if name.startswith(("HEADRACE", "AWS", "HOME"))}


async def test_a_file_is_read_where_none_of_another_tenant_was(sandbox: Sandbox) -> None:
    async with FileExtractor(sandbox, children=1) as files:
        seen = {}
        for tenant in ("acme", "zenith", "acme"):
            await files.extract(tenant, b"text", "text/plain", "")
            assert seen.setdefault(files.pids[-1], tenant) == tenant
        assert len(seen) == 2


async def test_a_cancelled_extraction_ends_its_child(sandbox: Sandbox) -> None:
    async with FileExtractor(sandbox, children=1) as files:
        before = children()
        task = asyncio.create_task(files.extract("acme", b"[" * 3_000_000, "text/markdown", ""))
        while not (begun := children() - before):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            while begun & children():
                await asyncio.sleep(0.01)
        assert blocks(await files.extract("acme", b"next", "text/plain", "")) == [("next", None)]


def test_a_reply_is_text_or_a_reason() -> None:
    reply = b'{"pieces": [["a", 1, null]], "pages": 1, "title": null, "warnings": ["1 comment left out"]}'
    assert extract._text(reply) == Text([Block("a", 1)], 1, None, ["1 comment left out"])
    for reply in (
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"pieces": [[1, 1, null]], "pages": 1, "title": null, "warnings": []}',
        b'{"pieces": [["a", 1, null]], "pages": 1, "title": null}',
        b'{"pieces": 9}',
    ):
        with pytest.raises(Unreadable) as caught:
            extract._text(reply)
        assert caught.value.code == "broken_file"
