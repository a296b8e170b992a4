"""Which passages an answer is said to rest on."""

from __future__ import annotations

from handlers.chat.citations import citations
from handlers.ports.index import Entry, Hit

VALVE = "The Larkspur valve opens at 4.2 bar. It was installed in 2019."
LADDER = "The ladder has 22 pools. The water drops 15 centimetres from pool to pool."


def hit(id: str, content: str) -> Hit:
    return Hit("dataset", f"document-{id}", Entry(id, 0, content, 3, "Valves"), 0.5, 1)


HITS = [hit("a", VALVE), hit("b", LADDER)]
NAMES = {"document-a": "valves.md", "document-b": "ladder.md"}


def test_each_sentence_of_an_answer_cites_what_it_resembles() -> None:
    found = citations("The ladder has 22 pools. The Larkspur valve opens at 4.2 bar.", HITS, NAMES)
    assert [(each["position"], each["document_name"], each["sentence"]) for each in found] == [
        (1, "ladder.md", "The ladder has 22 pools."),
        (2, "valves.md", "The Larkspur valve opens at 4.2 bar."),
    ]
    assert (found[1]["page"], found[1]["heading"]) == (3, "Valves")


def test_a_passage_is_cited_once() -> None:
    assert len(citations(VALVE, HITS, NAMES)) == 1


def test_numbers_that_the_model_gives_go_first() -> None:
    [only] = citations("It needs some pressure to open [1].", HITS, NAMES)
    assert (only["document_name"], only["segment"]) == ("valves.md", "a")


def test_numbers_that_do_not_exist_are_passed_over() -> None:
    assert citations("So it is [7].", HITS, NAMES) == []


def test_what_rests_on_nothing_cites_nothing() -> None:
    assert citations("I do not know.", HITS, NAMES) == []
    assert citations("Anything.", [], NAMES) == []
