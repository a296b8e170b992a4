"""Detection of text encodings: by marks and patterns, then by what decodes, then by the look of the text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

_SAMPLE = 2**16
_MARKS = (
    (codecs.BOM_UTF8, None),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, since it begins with the mark of that
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPES = {b"\x1b$B": "iso2022_jp", b"\x1b$@": "iso2022_jp", b"\x1b$)C": "iso2022_kr"}
_EAST_ASIAN = ("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949")
_MARKS_OF_TEXT = "–—‘’“”„…«»°·•§©®€№×½"
_WESTERN = "äöüßéèêëàâçôîïùûœæñáíóúãõåøìòýµ¿¡ÄÖÜÉÀÇÑÅØÆ" + _MARKS_OF_TEXT
_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэіїєґ"
_COMMON = {
    "gb18030": (
        "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多"
        "天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但"
        "身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四"
        "第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员性通目报"
        "立命活难神数件安表原车白应路期常提感金何更反合放做系计或司利受光果亲界及今务制解各任至清物记边共风接它许特觉"
        "望直服题建南度统色字请交认算论百义科元社术结六功指思非流每管连远资队带快条院变联言权往展该领传近留治决周保达"
        "办运半必城强步完深区即求品转量空技轻程告语英基满式写识极收未持取设始版双历商片容研站广改议形单据导影失网专石"
        "校读观争究包组造落视说明手册操步骤"
    ),
    "big5hkscs": (
        "的一是不了在人有我他這中大來上國個到說們為子和你地出道也時年得就那要下以生會自著去之過家學對可她裡後小麼心多"
        "天而能好都然沒日於起還發成事只作當想看文無開手十用主行方又如前所本見經頭面公同三已老從動兩長知民樣現分將外但"
        "身些與高意進把法此實回二理美點月明其種聲全工己話兒者向情部正名定女問力機給等幾很業最間新什打便位因重被走電四"
        "第門相次東政海口使教西再平真聽世氣信北少關並內加化由卻代軍產入先山五太水萬市眼體別處總才場師書比住員性通目報"
        "立命活難神數件安表原車白應路期常提感金何更反合放做系計或司利受光果親界及今務制解各任至清物記邊共風接它許特覺"
        "望直服題建南度統色字請交認算論百義科元社術結六功指思非流每管連遠資隊帶快條院變聯言權往展該領傳近留治決周保達"
        "辦運半必城強步完深區即求品轉量空技輕程告語英基滿式寫識極收未持取設始版雙歷商片容研站廣改議形單據導影失網專石"
        "校讀觀爭究包組造落視明冊操步驟"
    ),
    "cp949": (
        "이다는을의에가고하지도은한를로서니사기해자리그나어시수정있대인으아일들주보과전원제상만부라안장구여신공동조면"
        "스생성비국유간문화요경것때물"
    ),
    "cp1252": _WESTERN,
    "cp1250": "ąćęłńóśźżŁŚŻáčďéěíňřšťúůýžČŘŠŽőűöüäăâîşţđ" + _MARKS_OF_TEXT,
    "iso8859-2": "ąćęłńóśźżŁŚŻáčďéěíňřšťúůýžČŘŠŽőűöüäăâîşţđ§°×",
    "cp1254": "ğüşıöçİâîŞÇÖÜ" + _MARKS_OF_TEXT,
    "cp1257": "āčēģīķļņšūžąęėįųõäöüŠŽ" + _MARKS_OF_TEXT,
    "cp1251": _RUSSIAN + _MARKS_OF_TEXT,
    "koi8-r": _RUSSIAN,
    "iso8859-5": _RUSSIAN + "№§",
    "cp866": _RUSSIAN + "№",
    "cp1253": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώ" + _MARKS_OF_TEXT,
    "cp1255": "אבגדהוזחטיכלמנסעפצקרשתםןךףץ" + _MARKS_OF_TEXT,
    "cp1256": "ابتثجحخدذرزسشصضطظعغفقكلمنهويىةأإآءئؤ،؛؟" + _MARKS_OF_TEXT,
    "cp874": "กขคงจชซญณดตถทนบปผพฟภมยรลวศษสหอะัาำิีึืุูเแโใไ็่้์" + "“”‘’…–",
}
"""The most common characters of the languages of a codec."""

_LATIN = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1257")
_OTHER = ("cp1251", "koi8-r", "iso8859-5", "cp866", "cp1253", "cp1255", "cp1256", "cp874")
_RUN = re.compile(rb"[\x80-\xff]{3,}")
"""A run of non-ASCII letters, such as words of other scripts; Latin words mix them with ASCII letters."""

_KANA = re.compile("[\u3041-\u30fe]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_HAN = re.compile("[\u4e00-\u9fff]")
_RARE = re.compile("[\x80-\x9f\ue000-\uf8ff\uff61-\uff9f]")


def wide(sample: bytes) -> str | None:
    """The codec of a text in UTF-16 or UTF-32, by its byte order mark or the places of its zeros; else None."""
    for mark, codec in _MARKS:
        if sample.startswith(mark):
            return codec
    if len(sample) < 4 or 0 not in sample:
        return None
    zeros = [part.count(0) / len(part) for part in (sample[place::4] for place in range(4))]
    if zeros[0] < 0.05 and zeros[2] > 0.4 and zeros[3] > 0.9:
        return "utf-32-le"
    if zeros[3] < 0.05 and zeros[1] > 0.4 and zeros[0] > 0.9:
        return "utf-32-be"
    for codec, low, high in (("utf-16-le", sample[::2], sample[1::2]), ("utf-16-be", sample[1::2], sample[::2])):
        if high.count(0) > len(high) * 0.4 and low.count(0) < len(low) * 0.05:
            return codec
        # In a script other than Latin, spaces have a zero byte; the other characters have one of few high bytes.
        if len(sample) >= 16 and 0 not in low and 0 in high and len(set(high)) <= 6:
            return codec
    return None


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of bytes: UTF-32, UTF-16 or UTF-8 if they are valid, else as `declared`, else as they look."""
    sample = data[:_SAMPLE]
    if codec := wide(sample):
        return data.decode(codec, "replace")
    for codec in _candidates(sample, declared):
        try:
            return data.decode(codec)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1")


def _candidates(sample: bytes, declared: str | None) -> Iterator[str]:
    yield from (codec for escape, codec in _ESCAPES.items() if escape in sample)
    yield "utf-8-sig"
    if declared:
        yield declared
    high = len(sample.translate(None, bytes(range(128))))
    best = max(_EAST_ASIAN, key=lambda codec: _east_asian(codec, sample, high))
    if _east_asian(best, sample, high):
        yield best
    if high > 3:  # fewer are no evidence
        likely = _OTHER if sum(map(len, _RUN.findall(sample))) > high / 2 else _LATIN
        yield max(likely, key=lambda codec: _single(codec, sample))
    yield "cp1252"


def _east_asian(codec: str, sample: bytes, high: int) -> float:
    """Likelihood that the sample, with `high` bytes above ASCII, is of a language of this codec; 0 for none."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    signs = len(re.findall("[^\0-\xff]", text))
    if signs < 2 or signs * 1.2 > high or _RARE.search(text):
        return 0.0
    kana, hangul, han = (len(pattern.findall(text)) / signs for pattern in (_KANA, _HANGUL, _HAN))
    common = sum(sign in _COMMON.get(codec, "") for sign in text) / signs
    match codec:
        case "cp949":
            return hangul if hangul > 0.6 and common > 0.25 else 0.0
        case "cp932" | "euc_jp":
            return kana + han if kana > 0.2 and kana + han > 0.7 else 0.0
        case _:
            return common if han > 0.6 and common > 0.25 and not kana else 0.0


def _single(codec: str, sample: bytes) -> float:
    """Share of the characters above ASCII that are common in a language of this codec, from 0 to 1."""
    text = sample.decode(codec, "replace")
    signs = [sign for sign in text if sign > "\x7f"]
    return sum(sign in _COMMON[codec] for sign in signs) / max(len(signs), 1)
