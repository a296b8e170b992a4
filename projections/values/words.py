"""The words of a text, the same for what is indexed and for what is asked."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

from snowballstemmer import stemmer  # type: ignore[import-untyped]

from domain.language import ASKING_WORDS, BURMESE, HAN, KOREAN, STOP_WORDS, UNSPACED, without_accents

RULES = 2
"""Number of these rules. An index made by others must be rebuilt; a test fails when the rules change without it."""

LONGEST = 64
"""Maximum length of a word, in characters; the rest is cut off."""

LONGEST_PHRASE = 200
"""Maximum length of a quoted phrase, in characters."""

_ORDINALS = frozenset(("st", "nd", "rd", "th"))

_REPEATED = "\u3005-\u3007"
_UNSPACED = UNSPACED + BURMESE + KOREAN + _REPEATED
_ALONE = re.compile(f"[{HAN}{KOREAN}{_REPEATED}]")

_STARTS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_MARKS = _STARTS_UNSPACED.sub(
    "", "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M"))
)

_JOINERS = r"\-\u2010\u2011\u2013\u2212._/:@&^\\"
"""Characters that join the parts of an identifier; a comma and an apostrophe join digits only."""

_HYPHENS = ("", "-", "\u2010", "\u2011", "\u2013", "\u2212", "_", "/")


def _tokens(run: str) -> str:
    """The pattern of a word or an identifier with its parts: `E-1042`, `192.168.4.17`, `C++`."""
    part = rf"(?:[{_JOINERS}]{{1,3}}+|(?<=\d)[,'’](?=\d)){run}"
    return rf"{run}(?:{part})*+(?:\+{{1,2}}+(?![^\W\d_])|#(?!\w))?"


_ASCII_TOKENS = re.compile(_tokens("[A-Za-z0-9]++"))
_TOKENS = re.compile(rf"[{_UNSPACED}]++|" + _tokens(rf"(?:[^\W_{_UNSPACED}]++|[{_MARKS}]++)++"))
_SIMPLE = re.compile(rf"[^\W\d_]++(?:[{_MARKS}]++[^\W\d_]*+)*+")
_RUNS = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]++|[{_MARKS}]++)++")
_SIGNS = re.compile(r"\+{1,2}$|#$")
_NAMED_SIGNS = {"+": "plus", "++": "plusplus", "#": "sharp"}
_PARTS = re.compile(rf"[^\W_{_MARKS}](?:[^\W_]++|[{_MARKS}]++)*+|[^\w{_MARKS}]++|_++|[{_MARKS}]++")
_PIECES = re.compile(r"\d++|\D++")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})++(?!\d)")
_BEGINS_WITH_DOT = re.compile(r"\.(?<![\w.]\.)(?=[^\W\d_])")
_SHORTENED = re.compile(r"['’](?<=[^\W\d_].)(?:s|t|m|d|ll|re|ve)(?!\w)|(?<!\w)(?:e\.g|i\.e)(?!\w)", re.IGNORECASE)
"""Ends of shortened words, as in `it's`, and abbreviations that mean nothing."""

_SPACED_DIGITS = re.compile(r" \d{3}(?<=\d \d{3})")
_POWERS = re.compile(r"(?<=[0-9])(?=[⁰¹²³⁴-⁹⁻])")

_LETTER = re.compile(r"(?<!\w)(\w{1,20}) ([AI])(?![\w'’])")
_ENDS_IN_A = re.compile(r"\ba\W{0,20}$", re.IGNORECASE)
_AFTER_THE = re.compile(r"(?<!\w)the (\w{1,20})(?!\w)", re.IGNORECASE)
_QUOTED = re.compile(
    "|".join(
        f"{opening}([^{opening}{closing}]{{1,{LONGEST_PHRASE}}}){closing}"
        for opening, closing in ('""', "“”", "„“", "«»", "「」", "『』")
    )
)

_CLEANED = dict.fromkeys([*range(0x591, 0x5C8), 0x640, *range(0x64B, 0x660), 0x670])  # vowel points, tatweel
_CLEANED |= dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF])  # what cannot be seen
_CLEANED |= {code: str(int(chr(code))) for code in range(0x80, 0x20000) if chr(code).isdecimal()}


def words(text: str) -> Counter[str]:
    """The number of times each word is in the text, without English stop words that are not written as names.

    English is stemmed. Scripts without spaces, and Korean, become pairs of neighbouring characters, Chinese characters
    and Korean syllables also stand alone. Identifiers and numbers give their parts, and every two neighbouring parts as
    one word: `E-1042` has `e1042`, `4,2` has `4.2`. A word with accents has a second form without. The vowel points of
    Arabic and Hebrew, which most writers leave out, are dropped; a word is cut at 64 characters.
    """
    text = _cleaned(text)
    found: Counter[str] = Counter()
    for token, times in Counter(_found(text)).items():
        for word in _words_of(token):
            found[word] += times
    for letter in _single_letters(text):
        found[letter] += 1
    return found


def distinct(text: str) -> dict[str, None]:
    """The words of the text without their counts."""
    text = _cleaned(text)
    found = {word: None for token in dict.fromkeys(_found(text)) for word in _words_of(token)}
    return found | dict.fromkeys(_single_letters(text))


def asked(query: str) -> Counter[str]:
    """The words of a query, as `words`.

    Stop words are in it that are names by their place, or because there is nothing else: `vitamin a`, `the who`, `us`.
    """
    found = words(query)
    text = _cleaned(query)
    if _ENDS_IN_A.search(text) and "a" not in found:
        found["a"] = 1
    for match in _AFTER_THE.finditer(text):
        if (word := match[1].lower()) in STOP_WORDS and word not in found:
            found[word] = 1
    return found or Counter(run.lower()[:LONGEST] for run in _RUNS.findall(text))


def quoted(query: str) -> list[str]:
    """The phrases in quotation marks with two words or characters at least."""
    found = ("".join(groups) for groups in _QUOTED.findall(query))
    return [phrase for phrase in found if len(_RUNS.findall(_cleaned(phrase))) > 1]


def holds(text: str, phrase: str) -> bool:
    """True if the words of a phrase follow one another in the text, whatever stands between them and is no word."""
    return _sequence(phrase) in _sequence(text)


def _sequence(text: str) -> str:
    """All words in order, in lower case and without accents, each between spaces."""
    return f" {'  '.join(without_accents(run.lower()) for run in _RUNS.findall(_cleaned(text)))} "


def _cleaned(text: str) -> str:
    """The text in compatible forms, numbers grouped by commas, without characters that no one sees."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _POWERS.sub("^", text)).translate(_CLEANED)
    if "'" in text or "’" in text or "e.g" in text or "i.e" in text:
        text = _SHORTENED.sub(" ", text)
    text = _BEGINS_WITH_DOT.sub("dot.", text)
    if _SPACED_DIGITS.search(text):
        text = _GROUPED.sub(lambda number: number[0].replace(" ", ","), text)
    return text.lower() if text.isupper() else text


def _found(text: str) -> list[str]:
    return (_ASCII_TOKENS if text.isascii() else _TOKENS).findall(text)


def _single_letters(text: str) -> Iterator[str]:
    """A and I where they are names, as in `vitamin A` and `type I`, not the article and the pronoun."""
    if " A" not in text and " I" not in text:
        return
    for before, letter in _LETTER.findall(text):
        if letter == "A" or before.lower() not in ASKING_WORDS:
            yield letter.lower()


def _words_of(token: str) -> tuple[str, ...]:
    """The words of a token, some of them several times."""
    if not token.isascii() and _STARTS_UNSPACED.match(token):
        alone = _ALONE.findall(token) if len(token) > 1 else [token]
        return (*(token[at : at + 2] for at in range(len(token) - 1)), *alone)
    return _known(token) if len(token) <= LONGEST else tuple(_spaced(token))


@lru_cache(maxsize=100_000)
def _known(token: str) -> tuple[str, ...]:
    return tuple(_spaced(token))


def _spaced(token: str) -> Iterable[str]:
    """The words of a token in a script with spaces."""
    if _SIMPLE.fullmatch(token):
        return _forms(token) if _kept(token) else ()
    return _identifier(token)


def _kept(word: str) -> bool:
    """False for a stop word, unless capitals make it a name."""
    lower = word.lower()
    return lower not in STOP_WORDS or (word.isupper() and lower not in ("a", "i"))


def _forms(word: str) -> tuple[str, ...]:
    """The stem of an English word; another word as it is, and without its accents."""
    word = word.lower()
    if word.isascii():
        return (_stem(word[:LONGEST]),)
    folded = without_accents(word)
    if folded in ("", word) or folded in STOP_WORDS:
        return (word[:LONGEST],)
    return word[:LONGEST], _stem(folded[:LONGEST]) if folded.isascii() else folded[:LONGEST]


def _identifier(token: str) -> Iterator[str]:
    """The parts of an identifier or number, every two neighbours as one word, and numbers without their grouping."""
    sign = _SIGNS.search(token)
    parts: list[tuple[str, str]] = []
    joiner = ""
    for part in _PARTS.findall(token[: sign.start()] if sign else token):
        if part[0].isalnum():
            pieces = _PIECES.findall(part)
            if len(pieces) > 3:  # a digest, whose pieces mean nothing
                pieces = [part]
            elif len(pieces) == 3:
                yield part.lower()[:LONGEST]
            for piece in pieces:
                parts.append((joiner, piece))
                joiner = ""
        else:
            joiner = part
    if sign and parts and not (last := parts[-1][1]).isdigit():
        yield from _forms(last + _NAMED_SIGNS[sign[0]])
        named = len(last) < 3  # C# is no C
    else:
        named = False
    for number, (joiner, part) in enumerate(parts[:-1] if named else parts):
        glued = (number > 0 and not joiner) or not all(joiner for joiner, _ in parts[number + 1 : number + 2])
        meant = len(part) > 1 and part.lower() not in _ORDINALS if glued else _kept(part) or part in ("A", "I")
        if part.isdigit() or meant:
            yield from _forms(part)
    for (_, left), (joiner, right) in pairwise(parts):
        if left.isdigit() and right.isdigit():
            yield f"{left}{'^' if '^' in joiner else '.'}{right}"[:LONGEST]
        elif not (joiner in _HYPHENS[1:6] and _is_long(left) and _is_long(right)):
            yield from _forms(left + right)
    yield from _ungrouped(parts)
    yield from _undivided(parts)


def _is_long(part: str) -> bool:
    """True for a part of a compound of ordinary words, such as `boundary-layer`, unlike those of `wi-fi`."""
    return len(part) > 3 and part.isalpha()


def _ungrouped(parts: list[tuple[str, str]]) -> Iterator[str]:
    """The number whose digits are grouped by thousands, as `1200` for `1,200`, `1.200` and `1'200`, with decimals."""
    if len(parts) < 2 or len(parts[0][1]) > 3 or parts[1][0] not in (",", ".", "'", "’"):
        return
    end = 1
    while end < len(parts) and parts[end][0] == parts[1][0] and len(parts[end][1]) == 3:
        end += 1
    whole = "".join(part for _, part in parts[:end])
    if end > 1 and whole.isdigit():
        if end == len(parts):
            yield whole[:LONGEST]
        elif end == len(parts) - 1 and parts[end][0] in (",", ".") and parts[end][1].isdigit():
            yield whole[:LONGEST]
            yield f"{whole}.{parts[end][1]}"[:LONGEST]


def _undivided(parts: list[tuple[str, str]]) -> Iterator[str]:
    """A number of a part, a date or a telephone number without its hyphens: `ab3412` for `AB-34-12`."""
    whole = "".join(part for _, part in parts).lower()
    known = len(parts) == 2 and not whole.isdigit()
    hyphens = len(parts) > 1 and all(joiner in _HYPHENS for joiner, _ in parts)
    if hyphens and not known and not whole.isalpha() and len(whole) <= LONGEST:
        yield whole


def _stem(word: str) -> str:
    # A stemmer of its own for every word: one must not be shared by threads, and they cost next to nothing.
    return str(stemmer("english").stemWord(word))
