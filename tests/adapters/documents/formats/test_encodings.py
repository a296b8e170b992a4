"""Detection of encodings by marks, by what decodes, and by the look of the text."""

from __future__ import annotations

import pytest

from adapters.documents.formats.encodings import decode, wide

GERMAN = "Größe – 3 µm. Die Übertragung über den Fluß läuft für März."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-16-le"), (GERMAN, "utf-16-be"), (GERMAN, "utf-32-le"), (GERMAN, "utf-32-be"), (GERMAN, "cp1252"),
        ("Вода течёт через плотину.", "utf-16-le"), ("Вода течёт через плотину.", "utf-16-be"),
        ("Вода течёт через плотину.", "cp866"), ("Вода течёт через плотину.", "iso8859-5"),
        ("L'été à la forêt où naît l'œuvre : élève, naïf.", "cp1252"), ("niño, ¿qué año? Canción", "cp1252"),
        ("Su barajdan akıyor; şöyle görünür: ğüşıöç.", "cp1254"), ("水は流れる。", "iso2022_jp"),
        ("水は流れる。", "cp932"), ("水は流れる。", "euc_jp"),
        ("这是水力发电的手册。", "gb18030"), ("這是水力發電的手冊。", "big5"), ("물이 흐릅니다.", "cp949"),
    ],
)  # fmt: skip
def test_a_sentence_is_enough(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_what_is_declared_goes_before_what_it_looks_like_but_not_before_utf_8() -> None:
    assert decode("Größe".encode("iso8859-15"), "iso8859-15") == "Größe"
    assert decode("Größe".encode(), "iso8859-15") == "Größe"
    assert decode("Größe".encode("cp1252"), "no-such-codec") == "Größe"


@pytest.mark.parametrize("sample", [b"", b"a", b"Wa\0ter \0runs\0 from here to the sea.", b"\0\0\0\0", GERMAN.encode()])
def test_zeros_here_and_there_make_no_wide_text(sample: bytes) -> None:
    assert wide(sample) is None
