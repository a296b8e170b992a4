"""PDF: every row and value of a page is read, in its frame; what only repeats is kept once."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

from adapters.documents.formats import pdf
from adapters.documents.formats.parsed import Parsed, Refused


def parsed(draw: Callable[[Canvas], None]) -> Parsed:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 842), invariant=1)
    draw(canvas)
    canvas.save()
    return pdf.read(file.getvalue())


def texts(found: Parsed) -> list[str]:
    return [piece.text for piece in found.pieces]


def written(canvas: Canvas, lines: list[str], *, top: float = 770, size: float = 11) -> None:
    canvas.setFont("Helvetica", size)
    for number, line in enumerate(lines):
        canvas.drawString(72, top - 16 * number, line)


# --- what repeats --------------------------------------------------------------------------------------------


def test_rows_of_a_table_over_pages_are_all_read() -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(4):
            written(
                canvas,
                ["Item", *(f"Valve type {page * 44 + row} {(page * 44 + row) * 7}.50 euros" for row in range(44))],
            )
            canvas.showPage()

    found = parsed(draw)
    rows = [line for text in texts(found) for line in text.split("\n")]
    assert [row for row in rows if row != "Item"] == [f"Valve type {row} {row * 7}.50 euros" for row in range(176)]
    assert found.warnings == []


@pytest.mark.parametrize("first", ["Invoice {}", "Lesson {}", "{}. rule of the house"])
def test_a_title_of_its_own_on_each_page_is_kept(first: str) -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(1, 7):
            written(canvas, [first.format(page)], top=800)
            written(canvas, [f"It costs {page * 17} euros.", "That is all."], top=700)
            written(canvas, [f"Total {page * 17}.00 EUR"], top=40)
            canvas.showPage()

    found = parsed(draw)
    assert [text for text in texts(found) if "It costs" not in text] == [
        text for page in range(1, 7) for text in (first.format(page), f"Total {page * 17}.00 EUR")
    ]
    assert found.warnings == []


@pytest.mark.parametrize("foot", ["ACME Ltd, page {} of 6", "Seite {}", "- page {} -", "{} | Handbook"])
def test_running_titles_are_kept_once_and_counted(foot: str) -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(1, 7):
            written(canvas, ["Handbook of the weir"], top=810)
            written(canvas, [f"On page {page} of the text, fact {page * 7} is written."], top=700)
            written(canvas, [foot.format(page)], top=30)
            canvas.showPage()

    found = parsed(draw)
    assert [(piece.text, piece.page) for piece in found.pieces if "fact" not in piece.text] == [
        ("Handbook of the weir", 1),
        (foot.format(1), 1),
    ]
    assert found.warnings == ["10 lines taken for running titles"]


def test_a_number_far_from_the_title_is_that_of_the_page() -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(1, 7):
            written(canvas, ["Handbook of the weir" if page % 2 else str(page + 100)], top=810)
            canvas.drawRightString(520, 810, str(page + 100) if page % 2 else "Gates and locks")
            written(canvas, [f"On page {page} of the text, fact {page * 7} is written."], top=700)
            canvas.showPage()

    found = parsed(draw)
    assert [text for text in texts(found) if "fact" not in text] == ["Handbook of the weir 101", "102 Gates and locks"]
    assert found.warnings == ["4 lines taken for running titles"]


def test_numbers_of_pages_are_left_out() -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(1, 4):
            written(canvas, [f"Fact {page * 7} is written."], top=700)
            written(canvas, [f"- {page + 100} -"], top=30)
            canvas.showPage()

    found = parsed(draw)
    assert texts(found) == [f"Fact {page * 7} is written." for page in range(1, 4)]
    assert found.warnings == ["3 lines taken for running titles"]


@pytest.mark.parametrize("angle", [0, 45, 90])
def test_a_watermark_is_no_heading_and_kept_once(angle: int) -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(3):
            canvas.saveState()
            canvas.setFont("Helvetica", 80)
            canvas.translate(250, 480)
            canvas.rotate(angle)
            canvas.drawString(-100, 0, "DRAFT")
            canvas.restoreState()
            written(
                canvas,
                [f"On day {page * 30 + row} the level was {row * 31} cm at the lower gauge." for row in range(30)],
            )
            canvas.showPage()

    found = parsed(draw)
    assert {piece.heading for piece in found.pieces} == {None}
    assert [text for text in texts(found) if "On day" not in text] == ["DRAFT"]
    assert sum(text.count("On day") for text in texts(found)) == 90


# --- turned pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_said", [True, False])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_turned_pages_are_measured_in_their_frame(angle: int, is_said: bool) -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(3):
            canvas.setPageRotation(angle if is_said else 0)
            canvas.saveState()
            width, height = (842, 595) if is_said and angle in (90, 270) else (595, 842)  # reportlab turns the box, too
            canvas.translate(*{0: (0, 0), 90: (width, 0), 180: (width, height), 270: (0, height)}[angle])
            canvas.rotate(angle)
            written(canvas, [f"Rule {page + 1}.{row}: gate {row} opens at {row + 6}." for row in range(8)], top=480)
            written(canvas, [str(page + 1)], top=20)
            canvas.restoreState()
            canvas.showPage()

    found = parsed(draw)
    assert texts(found) == [
        "\n".join(f"Rule {page + 1}.{row}: gate {row} opens at {row + 6}." for row in range(8)) for page in range(3)
    ]
    assert found.warnings == ["3 lines taken for running titles"]


# --- fields, links, small digits -----------------------------------------------------------------------------


def test_what_was_filled_in_is_read_next_to_its_words() -> None:
    def draw(canvas: Canvas) -> None:
        form = canvas.acroForm
        written(canvas, ["Name of the boat:"], top=700)
        form.textfield(name="boat", value="Kittiwake IV", x=200, y=690, width=200, height=20)
        form.checkbox(name="licence", checked=True, x=72, y=650, size=15)
        form.checkbox(name="crew", checked=False, x=72, y=620, size=15)
        canvas.drawString(100, 652, "Has a licence")
        canvas.drawString(100, 622, "Has a crew")
        form.choice(name="port", value="Ulm", options=["Ulm", "Bonn"], x=72, y=580, width=100, height=20)
        form.textfield(name="remark", tooltip="Remarks", value="All is well", x=72, y=500, width=200, height=20)
        form.textfield(name="key", fieldFlags="password", value="hunter2", x=72, y=400, width=200, height=20)
        form.textfield(name="secret", annotationFlags="hidden", value="unseen", x=72, y=350, width=200, height=20)
        written(canvas, ["End."], top=300)

    found = parsed(draw)
    assert texts(found) == [
        "Name of the boat: Kittiwake IV",
        "[x] Has a licence [ ] Has a crew",
        "port: Ulm",
        "Remarks: All is well",
        "End.",
    ]
    assert found.warnings == ["1 hidden field left out"]


def test_values_of_fields_between_words_are_read_there() -> None:
    def draw(canvas: Canvas) -> None:
        form = canvas.acroForm
        written(canvas, ["Size:"], top=700)
        form.radio(name="size", value="S", x=110, y=697, size=12)
        canvas.drawString(125, 700, "small")
        form.radio(name="size", value="L", selected=True, x=160, y=697, size=12)
        canvas.drawString(175, 700, "large")
        canvas.drawString(72, 650, "Name:")
        form.textfield(name="name", value="Ann", x=110, y=645, width=60, height=18)
        canvas.drawString(180, 650, "Town:")
        form.textfield(name="town", value="Ulm", x=220, y=645, width=60, height=18)
        canvas.drawString(290, 650, "(capital letters)")

    assert " ".join(texts(parsed(draw))) == "Size: [ ] small [x] large Name: Ann Town: Ulm (capital letters)"


@pytest.mark.parametrize(("before", "expected"), [("E-mail:", "E-mail: Ann Town"), ('"Keeper":', '"Keeper": Ann Town')])
def test_the_place_of_a_value_counts_signs_that_do_not_touch_the_base_line(before: str, expected: str) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 650, before)
        canvas.acroForm.textfield(name="name", value="Ann", x=130, y=645, width=40, height=18)
        canvas.drawString(180, 650, "Town")

    assert " ".join(texts(parsed(draw))) == expected


def test_rows_stay_lines() -> None:
    table = [("Item", "Amount", "Price"), ("Oil", "1", "2.50"), ("Gas", "2", "3.50"), ("Rope", "12", "7.00")]

    def draw(canvas: Canvas) -> None:
        for row, cells in enumerate(table):
            for column, cell in enumerate(cells):
                canvas.drawString(72 + 120 * column, 770 - 16 * row, cell)
        canvas.showPage()
        written(canvas, [f"{n} {name} {'.' * 40} {n * 7}" for n, name in enumerate(["Gates", "Boats", "Locks"], 1)])
        canvas.showPage()
        written(canvas, ["The gate at the upper weir", "is opened at six by the keeper", "on duty."])

    assert texts(parsed(draw)) == [
        "\n".join(" ".join(row) for row in table),
        "\n".join(f"{n} {name} {'.' * 40} {n * 7}" for n, name in enumerate(["Gates", "Boats", "Locks"], 1)),
        "The gate at the upper weir is opened at six by the keeper on duty.",
    ]


def test_a_form_that_is_only_filled_in_is_text() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.rect(72, 500, 90, 20)
        canvas.acroForm.textfield(name="boat", value="Kittiwake", x=72, y=500, width=90, height=20)
        canvas.showPage()

    assert texts(parsed(draw)) == ["boat: Kittiwake"]


def test_links_keep_their_addresses() -> None:
    def draw(canvas: Canvas) -> None:
        written(canvas, ["The leave form must be signed.", "See example.org for more."], top=700)
        canvas.linkURL("https://example.org/forms/leave-7.pdf", (90, 698, 150, 711))
        canvas.linkURL("https://example.org", (90, 682, 160, 695))

    assert " ".join(texts(parsed(draw))) == (
        "The leave form (https://example.org/forms/leave-7.pdf) must be signed. See example.org for more."
    )


def test_raised_and_lowered_digits_are_not_glued_to_others() -> None:
    def draw(canvas: Canvas) -> None:
        text = canvas.beginText(72, 700)
        for words, rise, size in (
            ("It holds 10", 0, 12),
            ("6", 4, 7),
            (" litres since 2019", 0, 12),
            ("3", 4, 7),
            (" and 10", 0, 12),
            ("-6", 4, 7),
            (" of H", 0, 12),
            ("2", -2, 7),
            ("O in 1234.", 0, 12),
        ):
            text.setRise(rise)
            text.setFont("Helvetica", size)
            text.textOut(words)
        canvas.drawText(text)

    assert texts(parsed(draw)) == ["It holds 10^6 litres since 2019 [3] and 10^-6 of H2O in 1234."]


# --- broken files --------------------------------------------------------------------------------------------


def facts(pages: int) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, invariant=1)
    for number in range(1, pages + 1):
        canvas.drawString(72, 700, f"Fact {number}: gate {number} is green.")
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def without_type(data: bytes, numbers: list[int]) -> bytes:
    places = [found.start() for found in re.finditer(rb"/Type /Page\b(?!s)", data)]
    for number in numbers:
        data = data[: places[number]] + b"/Type /Pagx" + data[places[number] + 11 :]
    return data


def test_a_broken_page_leaves_the_others() -> None:
    found = pdf.read(without_type(facts(3), [1]))
    assert [(piece.text, piece.page) for piece in found.pieces] == [
        ("Fact 1: gate 1 is green.", 1), ("Fact 3: gate 3 is green.", 3),
    ]  # fmt: skip
    assert found.warnings == ["page 2 cannot be read"]


def test_a_file_without_a_sound_page_is_broken() -> None:
    with pytest.raises(Refused) as caught:
        pdf.read(without_type(facts(2), [0, 1]))
    assert caught.value.code == "broken_file"


def test_a_file_without_its_head_is_read() -> None:
    assert texts(pdf.read(facts(1)[9:])) == ["Fact 1: gate 1 is green."]


def test_a_large_initial_makes_no_heading() -> None:
    def draw(canvas: Canvas) -> None:
        for number in range(3):
            top = 700 - 100 * number
            text = canvas.beginText(72, top)
            text.setFont("Helvetica", 30)
            text.textOut("T")
            text.setFont("Helvetica", 11)
            text.textOut(f"he level of day {number} was low at the gauge,")
            canvas.drawText(text)
            written(canvas, [f"and it stayed so until day {number + 3}."], top=top - 14)

    found = parsed(draw)
    assert {piece.heading for piece in found.pieces} == {None}
    assert sum(text.count("The level of day") for text in texts(found)) == 3


# --- scripts from right to left ------------------------------------------------------------------------------


def lettered(shown: bytes, letters: dict[int, str]) -> bytes:
    """A PDF that shows these codes from left to right in a font with these letters."""
    return drawn(b"1 0 0 1 60 700 Tm <%b> Tj" % shown.hex().encode(), letters)


def drawn(operators: bytes, letters: dict[int, str]) -> bytes:
    """A PDF with these operators of text in a font with these letters, each 7.2 points wide."""

    def stream(body: bytes) -> bytes:
        return b"<< /Length %d >>\nstream\n%b\nendstream" % (len(body), body)

    coded = {code: text.encode("utf-16-be").hex().encode() for code, text in letters.items()}
    pairs = b"".join(b"<%02X> <%b>\n" % each for each in coded.items())
    names = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        b"1 begincodespacerange <00> <FF> endcodespacerange\n"
        b"%d beginbfchar\n%bendbfchar endcmap end end" % (len(letters), pairs)
    )
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        stream(b"BT /F1 12 Tf %b ET" % operators),
        b"<< /Type /Font /Subtype /TrueType /BaseFont /F /FirstChar 65 /LastChar 90 /Widths [%b] /ToUnicode 6 0 R >>"
        % (b"600 " * 26),
        stream(names),
    ]
    data = b"%PDF-1.7\n" + b"".join(b"%d 0 obj\n%b\nendobj\n" % each for each in enumerate(objects, 1))
    return data + b"trailer << /Root 1 0 R /Size 7 >>\n"


@pytest.mark.parametrize("ligature", ["لا", "\ufefb"])
def test_letters_of_arabic_ligatures_are_in_order(ligature: str) -> None:
    assert texts(pdf.read(lettered(b"ABC", {0x41: "م", 0x42: ligature, 0x43: "س"}))) == ["سلام"]


@pytest.mark.parametrize("by_letter", [True, False])
def test_hebrew_is_in_order_however_it_was_drawn(by_letter: bool) -> None:
    """Word by word, or letter by letter from right to left, which PDFium turns although it is in order."""
    sentence = ["השער", "נפתח", "בשעה", "16", "בבוקר", "ונסגר"]
    codes = {letter: code for code, letter in enumerate(sorted({*"".join(sentence)}), 65)}
    operators, right = b"", 400.0
    for word in sentence:
        left = right - 7.2 * len(word)
        shown = list(word if word.isdecimal() else reversed(word))  # from left to right
        if by_letter and not word.isdecimal():
            for place, letter in reversed(list(enumerate(shown))):
                operators += b"1 0 0 1 %.1f 700 Tm <%02X> Tj " % (left + 7.2 * place, codes[letter])
        else:
            hexed = b"".join(b"%02X" % codes[letter] for letter in shown)
            operators += b"1 0 0 1 %.1f 700 Tm <%b> Tj " % (left, hexed)
        right = left - 4
    assert texts(pdf.read(drawn(operators, {code: letter for letter, code in codes.items()}))) == [" ".join(sentence)]
