from __future__ import annotations

import pytest

from handlers.chat.questions import NAME, kinds, weights


def test_names_and_numbers_weigh_more_and_question_words_nothing() -> None:
    assert weights("At what pressure does the Larkspur valve 7 open?") == {
        "pressur": 1.0,
        "larkspur": NAME,
        "valv": 1.0,
        "7": NAME,
        "open": 1.0,
    }
    assert weights("What is it?") == {}
    assert weights("泵站在哪里？").keys() == {"泵站", "泵", "站"}
    assert weights("जनरेटर किससे चलता है?").keys() == {"जनरेटर", "चलत"}


@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        ("When was it built?", "It was built in 1962.", "It was built with care."),
        ("How many rooms are there?", "There are twelve rooms.", "There are rooms."),
        ("How long does it take?", "It takes three weeks.", "It takes 7 people."),
        ("How often is it cleaned?", "It is cleaned every Monday.", "It is cleaned with care."),
        ("At what pressure does it open?", "It opens at 4.2 bar.", "It opens with a key."),
        ("How heavy is it?", "It weighs 3.4 kg.", "It has 4 handles."),
        ("What does it cost?", "It is sold for €12.", "It is sold by the dozen."),
        ("Who designed it?", "It was designed by Ines Duarte.", "It was designed in Porto."),
        ("Why is it closed?", "It is closed because of frost.", "It is closed on Mondays."),
        ("What is the e-mail address?", "Write to a@b.example.", "Write to the office."),
        ("What is the phone number?", "Call +44 20 7946 0018.", "Call the office."),
        ("过船闸要多少钱？", "通行费为二十元。", "通行费由处长决定。"),
        ("いつですか", "毎年三月に点検する。", "丁寧に点検する。"),
        ("언제 점검합니까?", "매년 3월에 점검한다.", "자주 점검한다."),
        ("何时建成？", "1987年建成。", "湖边建成。"),
    ],
)
def test_knows_the_kind_of_thing_that_is_asked_for(question: str, answer: str, other: str) -> None:
    found = [kind for kind, _ in kinds(question)]
    assert sum(bool(kind.search(answer)) for kind in found) > sum(bool(kind.search(other)) for kind in found)


def test_a_kind_stands_for_the_words_that_ask_for_it() -> None:
    [(_, stands)] = kinds("How heavy is it?")[-1:]
    assert "heavy" in stands
