from __future__ import annotations

import time

from handlers.chat.ranking import ranked

PASSAGES = ["The gate is green.", "The pump moves 1,200 litres an hour.", "The gate opens at six; the pump rests."]


def test_the_passage_with_the_rarest_words_of_the_question_is_first() -> None:
    assert ranked("How many litres does the pump move?", PASSAGES) == [1, 2, 0]


def test_without_shared_words_the_order_is_that_of_the_file() -> None:
    assert ranked("Summarize this, please.", PASSAGES) == [0, 1, 2]
    assert ranked("?", PASSAGES) == [0, 1, 2]
    assert ranked("Why?", []) == []


def test_a_long_file_takes_time_in_proportion_to_its_length() -> None:
    passages = [
        f"Rule {number} of the lock says that gate {number % 7} stays shut in winter." for number in range(3000)
    ]
    began = time.perf_counter()
    assert ranked("What does rule 2718 say?", passages)[0] == 2718
    assert time.perf_counter() - began < 5
