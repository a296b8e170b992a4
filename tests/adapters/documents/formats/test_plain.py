"""Plain text: paragraphs that were wrapped are whole, lines that mean lines stay lines."""

from __future__ import annotations

import pytest

from adapters.documents.formats import plain


def texts(text: str) -> list[str]:
    return [piece.text for piece in plain.read(text.encode()).pieces]


@pytest.mark.parametrize(
    "lines",
    [
        [f"2026-03-01 10:{i:02}:07 INFO pump-{i % 4} started at station north with {i} bar" for i in range(4)],
        [f"pump-{i} started at the station north with a pressure of {i} bar at noon." for i in range(4)],
        [f"[{i:02}] WARN the level of the upper water is above the mark of the year 19{i:02}" for i in range(4)],
        [
            "Harbour Supplies and Ropes Company Limited (Upper Millbrook)",
            "Magellan Phoenix Marine and Trading Company Limited (Weir)",
            "Northern Lantern and Buoy Manufacturing Company Ltd (Quay)",
        ],
        [
            "harbour supplies and ropes company limited (upper millbrook)",
            "magellan phoenix marine and trading company limited (weir)",
            "northern lantern and buoy manufacturing company ltd (quay)",
        ],
        [
            "The first gate of the weir opens at six in the morning.",
            "Its second gate is opened an hour later by the keeper.",
            "Only the keeper of the weir may open the third of them.",
        ],
        ["北京市海淀区中关村大街二十七号中国人民大学出版社", "上海市浦东新区世纪大道一百号环球金融中心四十层"],
    ],
)
def test_lines_of_logs_and_lists_stay_lines(lines: list[str]) -> None:
    assert texts("\n".join(lines) + "\n") == ["\n".join(lines)]


@pytest.mark.parametrize(
    ("wrapped", "whole"),
    [
        (
            "The weir was built of stone from the quarry upstream,\nwhich was floated down on rafts in the year 1824,\n"
            "by men.",
            "The weir was built of stone from the quarry upstream, which was floated down on rafts in the year 1824,"
            " by men.",
        ),
        (
            "水库的闸门每年检查一次，值班员负责记录水位，发现异常情况应当立即报告防汛指\n挥部，并按照应急预案的规定组织人员。",
            "水库的闸门每年检查一次，值班员负责记录水位，发现异常情况应当立即报告防汛指挥部，并按照应急预案的规定组织人员。",
        ),
        (
            "この水門は毎年三月に点検され、当番の職員が水位を記録し、異常があれば直ちに本部へ連\n絡しなければならない。",
            "この水門は毎年三月に点検され、当番の職員が水位を記録し、異常があれば直ちに本部へ連絡しなければならない。",
        ),
        (
            "Die Prüfung der großen Kühl\u00ad\nanlage ist in jedem Jahr im März, und zwar durch den Wärter.",
            "Die Prüfung der großen Kühlanlage ist in jedem Jahr im März, und zwar durch den Wärter.",
        ),
        ("A zero\u200b\u200bwidth and a soft\u00adhyphen.", "A zerowidth and a softhyphen."),
        (
            "This paragraph was wrapped by a program which also hyph-\nenated some of the words of its "
            "lines, but not the well-\nknown ones: they are known well.",
            "This paragraph was wrapped by a program which also hyphenated some of the words of its lines, but "
            "not the well-known ones: they are known well.",
        ),
        (
            "ประตูน้ำเปิดเวลาหกโมงเช้าทุกวันและปิดเวลาสามทุ่ม เจ้าหน้าที่ต้องตรวจสอบระดับ\nน้ำก่อนเปิดประตูทุกครั้ง",
            "ประตูน้ำเปิดเวลาหกโมงเช้าทุกวันและปิดเวลาสามทุ่ม เจ้าหน้าที่ต้องตรวจสอบระดับน้ำก่อนเปิดประตูทุกครั้ง",
        ),
    ],
)
def test_wrapped_paragraphs_and_words_are_whole(wrapped: str, whole: str) -> None:
    assert texts(wrapped) == [whole]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\x1b[1;32mINFO\x1b[0m pump\r\n\x1b]0;title\x07WARN", "INFO pump\nWARN"),
        ("N\bNA\bA  open_\bn", "NA  openn"),
        ("one\r\r\ntwo\u2028three\vfour", "one\ntwo\nthree\nfour"),
    ],
)
def test_signs_of_terminals_and_printers_are_no_text(text: str, found: str) -> None:
    assert texts(text) == [found]


def test_code_keeps_its_indentation() -> None:
    assert texts("a:\n  b: 1\n\n  c: 2\n\f  d: 3\n") == ["a:\n  b: 1", "  c: 2", "d: 3"]
