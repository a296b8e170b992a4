from __future__ import annotations

import pytest

from projections.values.fingerprint import fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sent nothing for 60 s.", "Sent nothing for 12.5 s."),
        ("No model 'large-70b' here", "No model 'tiny' here"),
        ("Call 0190a1b2-0000-7000-8000-00000000abcd was lost", "Call 0190a1b2-1111-7000-8000-00000000abce was lost"),
        ("at 0xdeadbeef12 in read", "at 0xfeedbeef99 in read"),
        ("Refused:  127.0.0.1:8000\n", "Refused: 127.0.0.1:9123"),
    ],
)
def test_failures_that_differ_in_what_they_happened_to_are_one(one: str, other: str) -> None:
    assert fingerprint("chat", "failed", one) == fingerprint("chat", "failed", other)


def test_failures_of_another_kind_code_or_text_are_others() -> None:
    known = ("chat", "timeout", "Sent nothing.")
    others = [("embedding", *known[1:]), ("chat", "refused", known[2]), (*known[:2], "The connection broke.")]
    assert len({fingerprint(*each) for each in (known, *others)}) == 4
    assert len(fingerprint(*known)) == 12


def test_a_hostile_error_takes_no_time() -> None:
    assert fingerprint("chat", "failed", "'" * 10**6 + "1" * 10**6)
