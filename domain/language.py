"""Lists of natural language that searches, answers and segmenters share: stop words, scripts, ends of sentences."""

from __future__ import annotations

import re
import unicodedata

_STOP_WORDS = """
a an and are as at be but by can could did do does for from had has have he her his how i if in into is it its may me my
no not of on or our she should so such than that the their them then there these they this those to us was we were what
when where which who why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words without a meaning of their own in a search."""

_ASKING_WORDS = """
about all also am any been being both cannot doing done get give having here hers him just let many might mine more most
much must name nor off one only out over own please shall some take takes tell too under until up very while whom whose
yours
"""
ASKING_WORDS = STOP_WORDS | frozenset(_ASKING_WORDS.split())
"""English words that do not tell the subject of a question."""

_PARTICLES = """
है हैं था थी थे हो का की के को में से पर ने और तो ही भी यह वह क्या कौन कब कहाँ कहां कैसे कैसा कैसी
क्यों कितना कितनी कितने किस किसे किसने किससे किसका किसकी किसके किसको कौनसा कौनसी होता होती होते सकता सकते सकती
ما ماذا من متى أين اين كيف كم لماذا هل في على إلى الى عن هو هي هذا هذه التي الذي كان كانت أي اي مع و أو او
يتم تم يمكن هناك
"""
PARTICLES = frozenset(_PARTICLES.split())
"""Words of Hindi and Arabic that do not tell the subject of a question."""

UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"""Scripts without spaces between words, for a class of a regular expression: Thai, Lao, Khmer, Japanese, Chinese."""

BURMESE = "\u1000-\u109f"
KOREAN = "\uac00-\ud7af"
HAN = "\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"""Chinese characters, each of which has a meaning."""

COMPATIBLE = "\uf900-\ufaff"
"""Compatibility forms of Chinese characters, which NFKC replaces."""

STOPS = ".!?…؟।۔"
CLOSING = "\"'”’»)\\]"
"""Ends of a sentence, and quotes and brackets that may follow, for a class of a regular expression."""

WIDE_STOPS = "。！？｡"
WIDE_CLOSING = "」』”’）"
"""The same in scripts without spaces."""

_ACCENTS = re.compile("[\u0300-\u036f\u0653-\u0655]+")
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})


def without_accents(text: str) -> str:
    """A text in lower case without its accents; the vowel signs of Hindi and the voices of kana stay."""
    if text.isascii():
        return text
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", text.translate(_LETTERS)))
    return unicodedata.normalize("NFC", bare)
