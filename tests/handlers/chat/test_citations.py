"""Which passages an answer is said to rest on."""

from __future__ import annotations

from domain.chat.conversation import Citation
from handlers.chat.citations import citations
from handlers.chat.evidence import evidence
from handlers.ports.index import Entry, Hit

VALVE = "The Larkspur valve opens at 4.2 bar. It was installed in 2019."
LADDER = "The ladder has 22 pools. The water drops 15 centimetres from pool to pool."


def hit(id: str, content: str) -> Hit:
    return Hit("dataset", f"document-{id}", Entry(id, 0, content, 3, "Valves"), 0.5, 1)


HITS = [hit("a", VALVE), hit("b", LADDER)]
NAMES = {"document-a": "valves.md", "document-b": "ladder.md"}


def cited(answer: str, hits: list[Hit]) -> list[Citation]:
    return citations(evidence(answer, [hit.entry.content for hit in hits]), hits, NAMES)


def test_each_sentence_of_an_answer_cites_what_it_resembles() -> None:
    found = cited("The ladder has 22 pools. The Larkspur valve opens at 4.2 bar.", HITS)
    assert [(each["position"], each["document_name"], each["sentence"]) for each in found] == [
        (1, "ladder.md", "The ladder has 22 pools."),
        (2, "valves.md", "The Larkspur valve opens at 4.2 bar."),
    ]
    assert (found[1]["page"], found[1]["heading"]) == (3, "Valves")


def test_a_passage_is_cited_once() -> None:
    assert len(cited(VALVE, HITS)) == 1


def test_numbers_that_the_model_gives_go_first() -> None:
    [only] = cited("It needs some pressure to open [1].", HITS)
    assert (only["document_name"], only["segment"]) == ("valves.md", "a")


def test_numbers_that_do_not_exist_are_passed_over() -> None:
    assert cited("So it is [7].", HITS) == []


def test_what_rests_on_nothing_cites_nothing() -> None:
    assert cited("I do not know.", HITS) == []
    assert cited("Anything.", []) == []
