"""Lists of natural language that searches, answers and segmenters share: stop words, scripts, ends of sentences."""

from __future__ import annotations

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

UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"""Scripts without spaces between words, for a class of a regular expression: Thai, Lao, Khmer, Japanese, Chinese."""

BURMESE = "\u1000-\u109f"
KOREAN = "\uac00-\ud7af"
COMPATIBLE = "\uf900-\ufaff"
"""Compatibility forms of Chinese characters, which NFKC replaces."""

STOPS = ".!?…؟।۔"
CLOSING = "\"'”’»)\\]"
"""Ends of a sentence, and quotes and brackets that may follow, for a class of a regular expression."""

WIDE_STOPS = "。！？｡"
WIDE_CLOSING = "」』”’）"
"""The same in scripts without spaces."""
