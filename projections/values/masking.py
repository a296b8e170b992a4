"""Masking of addresses, numbers and keys in previews, searches and exports: each is replaced by the name of its kind.

Each kind takes one pass over the text without backtracking, so that a hostile text takes no longer than another.
Masking is idempotent, since no rule matches directly next to a replacement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

MASKING_VERSION = "1"
"""Grows when the same text is masked otherwise; custom patterns and a further masking are not part of it."""

_BEFORE = r"(?<![\w›])"
_AFTER = r"(?![\w‹])"

_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:.*?-----END [A-Z ]{0,40}PRIVATE KEY-----|.*)", re.DOTALL)
"""A key that does not end was cut off, and is one all the same."""

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@‹›]{1,512}+(?=@)")
"""`user:password` of an address."""

_BEARER = re.compile(rf"{_BEFORE}(bearer[ \t]+)[\w.~+/-]{{16,}}+=*+", re.IGNORECASE)

_KEY = (
    r"sk-[\w-]{16,}+"
    rf"|(?:AKIA|ASIA)[A-Z0-9]{{16}}{_AFTER}"
    r"|gh[pousr]_\w{20,}+|github_pat_\w{20,}+|glpat-[\w-]{16,}+|hf_\w{20,}+"
    r"|xox[abeoprs]-[\w-]{10,}+|AIza[\w-]{30,}+"
)
"""Of OpenAI and its like, Amazon, GitHub, GitLab, Hugging Face, Slack and Google."""

_KEYS = re.compile(rf"{_BEFORE}(?:{_KEY}|eyJ[\w-]{{8,}}+(?:\.[\w-]{{8,}}+(?:\.[\w-]*+)?|(?P<none>)))")
"""Those and JSON web tokens; `none` is what only begins as one: otherwise every `eyJ` in it would be tried."""

_KEYS_WITHIN = re.compile(f"{_BEFORE}(?:{_KEY})")

_KEY_SIGNS = ("sk-", "AKIA", "ASIA", "gh", "glpat-", "hf_", "xox", "AIza", "eyJ")
"""One of them is in every key."""

_EMAIL = re.compile(r"(?<![\w.%+›-])[\w.%+-]++@[\w-]++(?:\.[\w-]++)++")

_IBAN = re.compile(rf"{_BEFORE}[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]){{11,40}}+")

_CARD = re.compile(
    rf"{_BEFORE}(?:\d{{13,19}}+|\d{{4}}([ -])\d{{4}}\1\d{{4}}\1\d{{1,7}}+|\d{{4}}([ -])\d{{6}}\2\d{{4,5}}+){_AFTER}",
    re.ASCII,
)

_PHONE = re.compile(rf"{_BEFORE}(?:\+\(?[1-9]|\(?0[1-9]|00[1-9])(?:[ ().\-/]{{0,2}}\d){{5,15}}+", re.ASCII)
_AMERICAN = re.compile(
    rf"(?<![\w›+])(?:\+?1[ .-])?(?:\(\d{{3}}\) ?\d{{3}}-|\d{{3}}([ .-])\d{{3}}\1)\d{{4}}{_AFTER}", re.ASCII
)
_CHAIN = re.compile(r"(?:\d[ ().\-/]{0,2}){6}\d")
"""Seven digits with few characters between them, which every card and telephone number has."""

_NATIONAL_DIGITS = range(9, 13)
_DIGIT = re.compile(r"\d")

_PLACEHOLDER = "‹{}›"

Patterns = Mapping[str, re.Pattern[str]]


def _keys(text: str) -> str:
    if "-----" in text:
        text = _PEM.sub("‹key›", text)
    if "://" in text:
        text = _CREDENTIALS.sub("‹key›", text)
    if "bearer" in text.lower():
        text = _BEARER.sub(r"\1‹key›", text)
    return _KEYS.sub(_key, text) if any(sign in text for sign in _KEY_SIGNS) else text


def _key(match: re.Match[str]) -> str:
    return "‹key›" if match["none"] is None else _KEYS_WITHIN.sub("‹key›", match[0])


def _numbers(text: str) -> str:
    """Account and card numbers whose check digits are right, and telephone numbers."""
    text = _replace(_IBAN, "‹iban›", text, lambda match: _longest(match, _is_iban))
    if not _CHAIN.search(text):
        return text
    text = _replace(_CARD, "‹card›", text, lambda match: match.end() if _is_card(match[0]) else None)
    text = _replace(_PHONE, "‹phone›", text, lambda match: _longest(match, _is_phone))
    return _AMERICAN.sub("‹phone›", text)


def _replace(pattern: re.Pattern[str], by: str, text: str, find_end: Callable[[re.Match[str]], int | None]) -> str:
    """Replace each match, up to the end that `find_end` returns; a match for which it returns None stays."""
    parts, done, at = [], 0, 0
    while match := pattern.search(text, at):
        end = find_end(match)
        at = end or match.start() + 1
        if end:
            parts += [text[done : match.start()], by]
            done = end
    return "".join([*parts, text[done:]])


def _longest(match: re.Match[str], fits: Callable[[str], bool]) -> int | None:
    """Return the end of the longest beginning of the match that fits and does not end within a word, or None."""
    text, start, end = match.string, match.start(), match.end()
    if text[end : end + 1].isalnum() or text[end : end + 1] in ("_", "‹"):
        end = _word(text, start, end)
    while end > start:
        if fits(text[start:end]):
            return end
        end = _word(text, start, end)
    return None


def _word(text: str, start: int, end: int) -> int:
    """Where the word before the last one ends."""
    while end > start and text[end - 1].isalnum():
        end -= 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return end


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """It begins as payment cards do, and its check digit is right."""
    digits = [int(one) for one in text if one.isdecimal()]
    return (
        digits[0] in range(2, 7)
        and sum(digits[-1::-2] + [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]) % 10 == 0
    )


def _is_phone(text: str) -> bool:
    """With the code of a country it may be short; else it has as many digits as in most countries."""
    count = sum(map(str.isdecimal, text))
    if text[0] == "+" or text.startswith("00"):
        return count >= 7
    return count in _NATIONAL_DIGITS and "." not in text


def _built_in(text: str) -> str:
    """Most texts have none of the signs that what is looked for cannot be without."""
    text = _keys(text)
    if "@" in text:
        text = _EMAIL.sub("‹email›", text)
    return _numbers(text) if _DIGIT.search(text) else text


class Masking:
    """Replaces every e-mail address, telephone, card or account number and key by `‹email›`, `‹phone›`, `‹card›`,
    `‹iban›` or `‹key›`, then matches of custom `patterns` by their `‹name›`; then takes what `further` returns.

    `version` names the rules, those of the installation included.
    """

    def __init__(self, patterns: Patterns | None = None, further: Callable[[str], str] | None = None) -> None:
        self._patterns = dict(patterns or {})
        self.further = further
        custom = "\n".join(f"{name}={pattern.pattern}" for name, pattern in self._patterns.items())
        custom += f"\n{getattr(further, 'version', '')}" if further else ""
        self.version = MASKING_VERSION + (f"+{sha256(custom.encode()).hexdigest()[:8]}" if custom else "")

    def __call__(self, text: str) -> str:
        text = _built_in(text)
        for name, pattern in self._patterns.items():
            text = pattern.sub(_PLACEHOLDER.format(name), text)
        return self.further(text) if self.further else text


def patterns(lines: Iterable[str]) -> Patterns:
    """Custom patterns, one a line as `name = regular expression`; blank lines and those that begin with # are left out.

    Raises: ValueError that names the line and the rule.
    """
    found: dict[str, re.Pattern[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, expression = (part.strip() for part in line.partition("="))
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name):
            raise ValueError(f"line {number}: must be like `name = regular expression`, the name in lower case")
        try:
            found[name] = re.compile(rf"(?<!›)(?:{expression})(?!‹)")
        except re.error as error:
            raise ValueError(f"line {number}: {expression!r} is not a regular expression: {error}") from None
        if found[name].search(""):
            raise ValueError(f"line {number}: {expression!r} matches an empty text")
    return found
