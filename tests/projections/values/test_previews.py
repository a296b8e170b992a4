from __future__ import annotations

from projections.values.masking import Masking
from projections.values.previews import MOST, PREVIEW, Words, preview, with_words

MASKING = Masking()
WORDS = Words(MASKING)


def test_a_preview_is_one_masked_line() -> None:
    assert preview("Write to\n\tada@example.com  today", MASKING) == "Write to ‹email› today"
    assert len(preview("word " * 10**5, MASKING)) <= PREVIEW


def test_words_keep_their_order_and_come_once() -> None:
    assert with_words(["gate"], ["The gates are high.", "High gates"], WORDS) == ["gate", "high"]


def test_a_key_is_masked_though_there_are_empty_lines_in_it() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4\n\nsecretbytes\n-----END RSA PRIVATE KEY-----"
    assert with_words((), [f"Here it is:\n\n{key}"], WORDS) == ["here", "key"]


def test_there_is_an_end_to_the_words_of_a_trace() -> None:
    assert len(with_words((), (f"word{number}" for number in range(2 * MOST)), WORDS)) == MOST
