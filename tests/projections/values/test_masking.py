"""Text that a preview may not show is replaced, in linear time, and stays replaced."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.values.masking import MASKING_VERSION, Masking, patterns

mask = Masking()

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jo.doe+news@mail.example.co.uk, soon.", "Write to ‹email›, soon."),
        ("Пишите на вася@пример.рф!", "Пишите на ‹email›!"),
        ("tel +49 171 123-45-67.", "tel ‹phone›."),
        ("call (555) 123-4567 or 555-123-4567", "call ‹phone› or ‹phone›"),
        ("0171 1234567", "‹phone›"),
        ("004917112345678", "‹phone›"),
        ("card 4111 1111 1111 1111 exp 12/27", "card ‹card› exp 12/27"),
        ("card 4111111111111111.", "card ‹card›."),
        ("order 12 5500-0000-0000-0004 now", "order 12 ‹card› now"),
        ("3782 822463 10005", "‹card›"),
        ("0171 1234567 2026-05-04", "‹phone› 2026-05-04"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN ‹iban› please"),
        ("GB82WEST12345698765432", "‹iban›"),
        ("DE89 3704 0044 0532 0130 00 4111 1111 1111 1111", "‹iban› ‹card›"),
        ("key sk-proj-abcdefghij0123456789", "key ‹key›"),
        ("AKIAIOSFODNN7EXAMPLE", "‹key›"),
        ("ghp_0123456789abcdefghij0123456789abcdef", "‹key›"),
        ("Authorization: Bearer abcdefghijklmnop1234==", "Authorization: Bearer ‹key›"),
        (JWT, "‹key›"),
        (f"before {PEM} after", "before ‹key› after"),
        (f"before {PEM[:50]}", "before ‹key›"),
        ("postgresql://bob:s3cret@db.example.com/x", "postgresql://‹key›@db.example.com/x"),
        ("[1]4111111111111111", "[1]‹card›"),
    ],
)
def test_what_is_personal_or_secret_is_replaced(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-05-04 12:30:00",
        "2026-05-04T08:00:00.123456Z",
        "192.168.100.200",
        "1 000 000 000",
        "3.14159265358979",
        "4111 1111 1111 1112",
        "0000 0000 0000 0000",
        "019a3f5c-1111-7222-8333-444455556666",
        "version 10.2.3, page 12 of 500",
        "DE01 3704 2044 1532 2130 00",
        "a task-force of skilled people",
        "x @ y.z, @someone, a@b",
        "https://example.com/a@b",
        "什么时候办公室关门?",
    ],
)
def test_what_is_neither_stays(text: str) -> None:
    assert mask(text) == text


PIECES = [
    "a@b.cd", "x", "@", ".", "-", " ", "+", "(", ")", "‹", "›", "‹key›", "0171 1234567", "4111 1111 1111 1111", "12",
    "4111111111111111", "DE89 3704 0044 0532 0130 00", "DE89", "GB82WEST12345698765432", "sk-abcdefghij0123456789",
    "AKIAIOSFODNN7EXAMPLE", "Bearer ", "abcdefghijklmnopqrst", JWT, PEM, PEM[:31], "://", "u:p", "\n", "555-123-4567",
    "5", "37", "0", "é", "/", "_", "=",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@given(st.text(alphabet="0123456789 +-.()/@aAzZ‹›:_=\n", max_size=200) | st.text(max_size=200))
def test_masking_any_text_twice_is_masking_it_once(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@given(st.text(max_size=50), st.text(max_size=50))
def test_an_address_between_blanks_never_stays(before: str, after: str) -> None:
    assert "jo@example.com" not in mask(f"{before} jo@example.com {after}")
    assert "4111 1111 1111 1111" not in mask(f"{before} : 4111 1111 1111 1111 : {after}")


HOSTILE = [
    "a", "a@", "a@a.", "a.", "1", "1 ", "1-", "+1", "(1", "11 11 ", "AB12", "AB12 ", "AB12 AAAA AAAA ", "eyJ",
    "eyJaaaaaaaa.",
    "sk-", "sk-a", "Bearer ", "bearer\t", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "://", "://a:", "://a@", "ghp_",
    "‹", "›", "xox", "AKIA", "_", "4111 1111 1111 1112 ", "01 01 ", "4 1 1 1 ", "é@é.é", "\n", "A ", "0171 ",
]  # fmt: skip


def seconds(piece: str, length: int) -> float:
    text = (piece * (length // len(piece) + 1))[:length] + "!"
    began = time.process_time()
    mask(text)
    return time.process_time() - began


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_takes_no_longer_than_another(piece: str) -> None:
    """Ten times the text takes about ten times as long; what is tried again and again would take a hundred times."""
    assert seconds(piece, 200_000) < 0.5 + 30 * seconds(piece, 20_000)


def test_a_megabyte_of_all_of_them_takes_seconds() -> None:
    assert seconds("".join(HOSTILE), 1_000_000) < 20


def test_an_installation_adds_patterns_of_its_own() -> None:
    own = Masking(patterns(["# of ours", "", "badge = B-[0-9]{4}"]), str.strip)
    assert own(" badge B-1234 of jo@example.com ") == "badge ‹badge› of ‹email›"
    assert own.version.startswith(f"{MASKING_VERSION}+")


def test_without_any_the_version_is_the_code_s() -> None:
    assert mask.version == MASKING_VERSION
    assert mask("B-1234") == "B-1234"


@pytest.mark.parametrize(
    ("line", "rule"),
    [("no equals", "must be like"), ("Bad = x", "must be like"), ("a = (", "not a regular"), ("a = x*", "empty text")],
)
def test_a_bad_pattern_is_named(line: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"line 2: .*{rule}"):
        patterns(["# first", line])
