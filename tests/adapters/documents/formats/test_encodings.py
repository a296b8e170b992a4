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
    assert decode(text.encode(encoding)).text == text


def test_what_is_declared_goes_before_what_it_looks_like_but_not_before_utf_8() -> None:
    assert decode("Größe".encode("iso8859-15"), "iso8859-15").text == "Größe"
    assert decode("Größe".encode(), "iso8859-15").text == "Größe"
    assert decode("Größe".encode("cp1252"), "no-such-codec").text == "Größe"


@pytest.mark.parametrize("sample", [b"", b"a", b"Wa\0ter \0runs\0 from here to the sea.", b"\0\0\0\0", GERMAN.encode()])
def test_zeros_here_and_there_make_no_wide_text(sample: bytes) -> None:
    assert wide(sample) is None


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        ("社員番号,氏名,部署\n1001,山田太郎,経理部\n1002,佐藤花子,総務部\n", "cp932", "Shift JIS"),
        ("社員番号,氏名,部署\n1001,山田太郎,経理部\n1002,佐藤花子,総務部\n", "euc_jp", "EUC-JP"),
        ("東京都,大阪府,北海道\n", "cp932", "Shift JIS"),
        ("鈴木一郎,田中次郎,渡辺三郎", "euc_jp", "EUC-JP"),
        ("株式会社", "cp932", "Shift JIS"),
        ("欧阳修,苏轼,辛弃疾,李清照\n", "gbk", "GB18030"),
        ("王伟,李娜,张敏,刘洋", "gbk", "GB18030"),
        ("歐陽脩,蘇軾,辛棄疾,李清照\n", "big5", "Big5"),
        ("王偉,李娜,張敏,劉洋", "big5", "Big5"),
        ("김철수,이영희,박민수\n", "cp949", "EUC-KR"),
        ("Größe der Kühlanlage in Zürich für März", "cp850", "CP850"),
        ("Müller;Köln", "cp1252", "Windows-1252"),
        ("Name;Ort\nJürgen Größe;Köln\nÄnne;Würzburg\n", "mac-roman", "Mac Roman"),
        ("L’écluse ouvre à six heures. « Où est le gardien ? »", "mac-roman", "Mac Roman"),
        ("Brána se otevírá v šest hodin, příliš žluťoučký kůň.", "cp852", "CP852"),
        ("Шлюз відкривається о шостій, їжак і ґанок.", "koi8-u", "KOI8"),
        ("Preis: 5 €, œuvre, naïve café.", "iso8859-15", "ISO 8859-15"),
        ("שם,עיר\nדנה,חיפה\n", "cp1255", "Windows-1255"),
        ("Η πύλη ανοίγει στις έξι.", "cp1253", "Windows-1253"),
    ],
)
def test_names_without_sentences_are_enough_and_the_guess_is_recorded(text: str, encoding: str, guess: str) -> None:
    assert decode(text.encode(encoding)) == (text, [f"encoding guessed: {guess}"])


def test_the_whole_text_counts_not_only_its_head() -> None:
    text = "plain\n" * 100_000 + "氏名: 山田太郎, 佐藤花子\n"
    assert decode(text.encode("cp932")).text == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Prüfung der Kühlanlage. ".encode() + b"21\xb0C", "Prüfung der Kühlanlage. 21�C"),
        ("水库的闸门每年检查一次。".encode() + b"\xe6\xb0 end", "水库的闸门每年检查一次。� end"),
        ("Größe\nKühlung;groß\n".encode() + b"L\xfcftung", "Größe\nKühlung;groß\nL�ftung"),
        ("Prüfung der Kühlanlage, naïf".encode()[:-1] + "é".encode()[:1], "Prüfung der Kühlanlage, naï�"),
    ],
)
def test_a_broken_byte_in_utf_8_is_one_broken_character(data: bytes, text: str) -> None:
    assert decode(data) == (text, ["encoding guessed: UTF-8, 1 byte replaced"])


def test_a_broken_byte_in_another_encoding_is_one_broken_character() -> None:
    text = "水库的闸门每年检查一次。" * 20
    assert decode(text.encode("gbk") + b"\xff") == (text + "�", ["encoding guessed: GB18030, 1 byte replaced"])


def test_valid_and_declared_texts_are_not_guessed() -> None:
    assert decode(GERMAN.encode()).warnings == []
    assert decode(b"plain").warnings == []
    assert decode("“Größe”".encode("cp1252"), "iso-8859-1") == ("“Größe”", [])


def test_one_whole_character_outweighs_one_broken_byte() -> None:
    assert decode("Prüfung bei 21".encode() + b"\xb0C.").text == "Prüfung bei 21�C."
