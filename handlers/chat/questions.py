"""Questions: the terms that matter, with weights, and the kind of thing that is asked for."""

from __future__ import annotations

import re

from domain.language import ASKING_WORDS, PARTICLES
from handlers.chat.terms import WORD, fold, terms, terms_of

NAME = 1.6
"""Weight of a name or a number; other words weigh 1."""

_ASKING = re.compile(
    "为什么|為什麼|什么时候|什麼時候|什么|什麼|怎么样|(?:需?要)?(?:怎么|怎麼|多少|多久)|怎样|怎樣|如何|多大|多长|多長|多高|多深|多重|几个|幾個|第几|哪里|哪裡|哪个|哪個"
    "|哪些|哪|何时|何時|谁|誰|请问|請問|可以|能否|是否|吗|嗎|呢|是|的|了|在"
    "|何ですか|でしょうか|でしたか|ですか|ましたか|ませんか|ますか|ください|どこ|いつ|だれ|どの|どれ|どう|なぜ|いくら|いくつ|何"
    "|무엇|무슨|어떤|어떻게|언제|어디(?:에서?|서)?|누가|누구|얼마|(?:있습|없습|습|입|합|됩)니까|인가요|[하되있]?나요|[을일할될]?까요"
)

_NUMBER = (
    r"\d|[一二三四五六七八九十百千万萬两兩]"
    r"|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand)\b"
)
_A_DIGIT = r"(?m:^)[^\d\n]*+\d"
"""A line up to its first digit, so that what follows is looked for once a line."""

_QUANTITY = (
    "pressure|temperature|weight|length|height|width|depth|capacity|price|cost|fee|number|limit|speed|size|age|amount"
    "|percentage|rate|voltage|power|distance|budget|version"
)
_DATE = (
    r"\b(?:1[5-9]|20)\d\d\b|\b\d{1,2}:\d\d\b|\b\d{1,2} ?[ap]\.?m\b|\b(?:noon|midnight|daily|weekly|monthly|yearly)\b"
    r"|\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b"
    r"|\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b"
    r"|[\d一二三四五六七八九十〇零] ?[年月日时時点點년월일]|[每毎][天日周週月年]|매[일주월년]"
)
_DURATION = (
    rf"(?m:^)(?>.*?(?:{_NUMBER}))"
    r".*?\b(?:m?s|h|d|seconds?|minutes?|hours?|days?|weeks?|months?|years?|k?m|metres?|meters?|miles?)\b"
)
_PERSON = (
    r"(?-i:\b(?:Dr|Mr|Mrs|Ms|Prof)\b|(?<=[a-z,;:] )[A-Z]\w+ (?:[A-Z]\. )?[A-Z]\w+"
    r"|^(?!The|An?|Our|This|Each|Every)[A-Z]\w+ (?:[A-Z]\. )?[A-Z]\w+)"
)

_KINDS = [
    (re.compile(asked, re.IGNORECASE), re.compile(given, re.IGNORECASE))
    for asked, given in (
        (
            r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|time)\b"
            r"|什么时候|什麼時候|何时|何時|哪一?[年天月]|いつ|언제|\bकब\b|\bمتى\b",
            _DATE,
        ),
        (r"\bhow (?:often|frequently)\b", r"\b(?:every|each|once|twice|(?:dai|week|month|annual|year)ly|times|per)\b"),
        (r"\bhow (?:long|soon|quickly)\b|多久", _DURATION),
        (
            rf"\bhow (?!long|often|do|does|did|can|to)\w+|\b(?:what|which)\b.{{0,20}}\b(?:{_QUANTITY})\b"
            r"|多少|多大|多长|多長|多高|多深|多重|几个|幾個|いくつ|いくら|何[人個台枚本]|얼마|몇|\bकितन|\bكم\b",
            _NUMBER,
        ),
        (
            r"\b(?:cost|price)|多少钱|多少錢|いくら|얼마",
            r"[$€£¥₹元円圆원]|\b(?:eur|usd|gbp|chf|euros?|dollars?|pounds?|francs?)\b",
        ),
        (r"\bpressure", rf"{_A_DIGIT}.*?\b(?:m?bar|psi|[km]?pa|atm)\b"),
        (
            r"\btemperature|\bhow (?:hot|cold|warm)",
            rf"\d ?°|{_A_DIGIT}.*?\b(?:degrees|celsius|fahrenheit|kelvin)\b",
        ),
        (
            r"\bweigh|\bhow heavy",
            rf"{_A_DIGIT}.*?\b(?:[km]?g|lbs?|ton(?:ne)?s?|kilos?|(?:kilo)?grams?|pounds?)\b",
        ),
        (r"\bwho(?:m|se)?\b|谁|誰|だれ|누구|누가", _PERSON),
        (r"\bwhy\b|为什么|為什麼|なぜ|왜", r"\b(?:because|due to|since|so that|in order to)\b|因为|因為|ため"),
        (r"\be-?mail|\bcontact\b", r"\S@\S"),
        (r"\b(?:tele)?phone|\bcall\b|\bcontact\b", r"\+?\d[\d ()/-]{5,}\d"),
    )
]


_LEFT_OUT = ASKING_WORDS | frozenset(fold(word) for word in PARTICLES)


def weights(question: str) -> dict[str, float]:
    """The terms of a question that name its subject, with their weights."""
    found: dict[str, float] = {}
    for place, word in enumerate(WORD.findall(_ASKING.sub(" ", question))):
        if fold(word) in _LEFT_OUT or (len(word) == 1 and word.islower()):
            continue
        named = word[0].isdigit() or (word[0].isupper() and (place > 0 or not word[1:].islower()))
        for term in (term for part in WORD.findall(fold(word)) for term in terms_of(part)):
            found[term] = max(found.get(term, 0.0), NAME if named else 1.0)
    return found


def kinds(question: str) -> list[tuple[re.Pattern[str], frozenset[str]]]:
    """Patterns of the kind of thing asked for, such as a date for "when", each with the terms that it stands for."""
    return [
        (given, frozenset(term for each in found for term in terms(each.group())))
        for asked, given in _KINDS
        if (found := list(asked.finditer(question)))
    ]
