from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.chat.evidence import evidence
from handlers.chat.sentences import LONG, _read, answering, best_sentence, scored, sentences
from tests.handlers.chat.languages import FACTS

VALVE = """Larkspur valve

The Larkspur valve opens at 4.2 bar. It was installed in 2019 by Dr. Maria Ortega of Fennel & Co. Ltd. The spare part
no. 7 costs €125.50 and weighs 3.4 kg.

Maintenance

Who may service it? Only certified technicians, e.g. those of the northern depot, may open the housing. The seal must be
replaced every 18 months. Contact: service@larkspur.example or +44 20 7946 0018."""

PUMP = """Foxglove pump: data

- Flow: 1,200 litres per hour
- Operating temperature: 5 °C to 60 °C
- Warranty: three years

The Foxglove pump was designed by Ines Duarte. It is made in Porto because the foundry stands there."""

OFFICE = """Office rules. The office opens at 8:30 and closes at 18:00. Employees get 28 days of paid leave. Travel
expenses are paid back within 14 days. Requests for leave go to Human Resources."""

LAKE = "泵站位于湖的北岸。它于1987年建成。阀门在四点二巴时打开。负责人是王丽。"

SITES = "| Site | Capacity | Opened |\n| Brackwater | 40 MW | 1962 |\n| Fellgate | 12 MW | 1971 |"

PASSAGES = [VALVE, PUMP, OFFICE, LAKE, SITES]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It opens. It closes.", ["It opens.", "It closes."]),
        ("Really?! Yes. “No.” He left…  Then", ["Really?!", "Yes.", "“No.”", "He left…", "Then"]),
        ("See Dr. Ortega, e.g. at 4.2 bar, no. 7.", ["See Dr. Ortega, e.g. at 4.2 bar, no. 7."]),
        ("Made by Fennel Ltd. The seal is new.", ["Made by Fennel Ltd.", "The seal is new."]),
        ("J. R. Smith came. He left.", ["J. R. Smith came.", "He left."]),
        ("The answer is no. Ask again.", ["The answer is no.", "Ask again."]),
        ("A line\nthat wraps. Next.", ["A line\nthat wraps.", "Next."]),
        ("Heading\n\nText here", ["Heading", "Text here"]),
        ("Lead:\n- one\n- two\n* three", ["Lead:", "one", "two", "three"]),
        ("1. Open it. 2. Close it.", ["1. Open it.", "2. Close it."]),
        ("| a | b |\n| c | d |", ["a | b", "c | d"]),
        ("# Title\n\n> quoted", ["Title", "quoted"]),
        ("他来了。你呢？好！", ["他来了。", "你呢？", "好！"]),
        ("هل يعمل؟ نعم. حسنا", ["هل يعمل؟", "نعم.", "حسنا"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_cuts(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="aB. ?!\n-|#1。é\u202e\x00", max_size=80))
def test_every_sentence_is_a_piece_of_the_text_in_order(text: str) -> None:
    place = 0
    for sentence in sentences(text):
        assert sentence
        place = text.index(sentence, place) + len(sentence)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("At what pressure does the Larkspur valve open?", "The Larkspur valve opens at 4.2 bar."),
        ("When was the Larkspur valve installed?", "It was installed in 2019 by Dr. Maria Ortega of Fennel & Co. Ltd."),
        ("Who installed the Larkspur valve?", "It was installed in 2019 by Dr. Maria Ortega of Fennel & Co. Ltd."),
        ("How much does spare part no. 7 cost?", "The spare part\nno. 7 costs €125.50 and weighs 3.4 kg."),
        ("how heavy is the spare part", "The spare part\nno. 7 costs €125.50 and weighs 3.4 kg."),
        ("How often must the seal be replaced?", "The seal must be\nreplaced every 18 months."),
        ("What is the phone number?", "Contact: service@larkspur.example or +44 20 7946 0018."),
        ("What temperature can the Foxglove pump operate at?", "Operating temperature: 5 °C to 60 °C"),
        ("How long is the warranty of the Foxglove pump?", "Warranty: three years"),
        ("Who designed the Foxglove pump?", "The Foxglove pump was designed by Ines Duarte."),
        ("Why is the Foxglove made in Porto?", "It is made in Porto because the foundry stands there."),
        ("When does the office close?", "The office opens at 8:30 and closes at 18:00."),
        ("How many days of leave do employees get?", "Employees get 28 days of paid leave."),
        ("How long do travel expenses take?", "Travel\nexpenses are paid back within 14 days."),
        ("What is the capacity of Fellgate?", "Fellgate | 12 MW | 1971"),
        ("泵站是什么时候建成的？", "它于1987年建成。"),
        ("负责人是谁？", "负责人是王丽。"),
    ],
)
def test_answers_a_question_of_fact_with_one_sentence(question: str, answer: str) -> None:
    assert [each.text for each in answering(question, PASSAGES)] == [answer]


def test_the_answer_to_a_question_in_the_text_is_what_follows_it() -> None:
    found = answering("Who may service the valve?", [VALVE])
    assert "Only certified technicians, e.g. those of the northern depot, may open the housing." in [
        each.text for each in found
    ]
    assert "Who may service it?" not in [each.text for each in found]


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "Who is the president of Brazil?",
        "How do I bake bread?",
        "What is it?",
        "",
        "?!",
    ],
)
def test_answers_nothing_when_nothing_answers(question: str) -> None:
    assert answering(question, PASSAGES) == []


def test_no_passages_no_answer() -> None:
    assert answering("When does the office close?", []) == []
    assert answering("When does the office close?", ["", " \n"]) == []


def test_sentences_that_answer_alike_stand_together_by_the_rank_of_their_passages() -> None:
    passages = ["Gate A is 12 metres wide. It is blue.", "Lunch is at noon.", "Gate B is 14 metres wide. It is red."]
    assert [(each.passage, each.text) for each in answering("How wide is each gate?", passages)] == [
        (0, "Gate A is 12 metres wide."),
        (2, "Gate B is 14 metres wide."),
    ]


def test_at_most_three_and_none_twice() -> None:
    passages = [f"Gate {number} is {number} metres wide." for number in (1, 1, 2, 3, 4, 5)]
    found = [each.text for each in answering("How wide is a gate?", passages)]
    assert len(found) == 3
    assert len(set(found)) == 3


def test_a_citation_is_the_sentence_that_the_answer_says_again() -> None:
    for sentence in sentences(VALVE)[1:]:
        if not sentence.endswith("?"):
            assert best_sentence(f"{sentence.rstrip('.')}.", VALVE) == sentence
    assert best_sentence("At what pressure does the Larkspur valve open?", VALVE).endswith("4.2 bar.")


def test_a_citation_of_a_passage_that_says_nothing_of_it_is_its_first_sentence() -> None:
    assert best_sentence("Quite another thing", OFFICE) == "Office rules."
    assert best_sentence("", OFFICE) == "Office rules."
    assert best_sentence("Anything?", "") == ""


@given(st.text(max_size=60), st.lists(st.text(max_size=120), max_size=4))
def test_any_text_is_scored_and_cited_from_itself(question: str, passages: list[str]) -> None:
    found = scored(question, passages)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert all(0 <= each.coverage <= 1.0001 and each.text in passages[each.passage] for each in found)
    assert all(best_sentence(question, passage) in passage for passage in passages)


def test_a_unit_before_a_new_paragraph_or_item_is_no_initial() -> None:
    text = "Agnes trips at 75 °C.\n\n- Bertha is stopped at 70 °C.\n- Clara warns at 45 °C."
    assert sentences(text) == ["Agnes trips at 75 °C.", "Bertha is stopped at 70 °C.", "Clara warns at 45 °C."]


@pytest.mark.parametrize("language", FACTS)
def test_questions_in_other_languages_are_answered(language: str) -> None:
    """Seven of eight at least, from passages as a search finds them, and from the one that holds the answer."""
    facts = FACTS[language]
    for count in (0, 3):
        found = 0
        for fact, question in facts:
            others = [other for other, _ in facts if other != fact][:count]
            found += [sentence.text for sentence in answering(question, [fact, *others])][:1] == [fact]
        assert found >= 7


@pytest.mark.parametrize("language", FACTS)
def test_questions_in_other_languages_are_not_answered_by_anything(language: str) -> None:
    facts = FACTS[language]
    wrong = [
        question for fact, question in facts if answering(question, [other for other, _ in facts if other != fact])
    ]
    assert len(wrong) <= 1


def test_a_passage_is_cut_into_sentences_once_for_all_statements_of_an_answer() -> None:
    _read.cache_clear()
    answer = "The valve opens at 4.2 bar. The warranty is three years. The office closes at 18:00."
    assert len(evidence(answer, PASSAGES)) == 3
    assert _read.cache_info().misses == len(PASSAGES)
    assert evidence(answer, [f"{passage} " + "x" * LONG for passage in PASSAGES])
    assert _read.cache_info().currsize == len(PASSAGES)
