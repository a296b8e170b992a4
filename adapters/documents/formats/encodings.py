"""Detection of text encodings: by marks and patterns, then by what decodes, then by the look of the text.

UTF-8 with a few broken bytes stays UTF-8, and so does a legacy encoding: the bytes are replaced and counted.
charset-normalizer was measured on short texts: it reads Cyrillic, Polish and French as Asian encodings.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from typing import NamedTuple

_SAMPLE = 2**18
"""Maximum length of the lines by which a legacy encoding is detected, in bytes."""

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
        "王李张刘陈杨赵黄周吴徐孙胡朱林郭罗梁宋郑谢韩唐冯董萧曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶余潘杜戴夏钟汪姜范姚谭廖邹熊陆"
        "郝孔崔康毛邱秦史顾侯邵孟龙段雷钱汤尹黎乔贺赖龚欧阳修伟芳娜敏静丽磊洋勇艳杰娟涛超霞刚桂玉兰秀珍庆志红梅春燕晓雪鹏宇"
        "浩轩涵梓欣怡思嘉诗雨佳慧琳辉斌鑫峰波健俊亮永胜京津渝沪川云贵陕浙皖闽粤湖河省市县区镇村街号圳州港湾限司股份集团企银"
        "址姓编价格订单户规额备注款货仓库职务辛弃疾清照白居易"
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
        "王李張劉陳楊趙黃周吳徐孫胡朱林郭羅梁宋鄭謝韓唐馮董蕭曹袁鄧許傅沈曾彭呂蘇盧蔣蔡賈丁魏薛葉余潘杜戴夏鍾汪姜范姚譚廖鄒熊陸"
        "郝孔崔康毛邱秦史顧侯邵孟龍段雷錢湯尹黎喬賀賴龔歐陽修偉芳娜敏靜麗磊洋勇豔傑娟濤超霞剛桂玉蘭秀珍慶志紅梅春燕曉雪鵬宇"
        "浩軒涵梓欣怡思嘉詩雨佳慧琳輝斌鑫峰波健俊亮永勝京臺灣竹桃園雄縣市區鎮村里街號巷弄樓限司股份集團企銀址姓編價格訂單戶規額"
        "備註款貨倉庫職務辛棄疾清照白居易"
    ),
    "japanese": (
        "日一国人年大十二本中長出三時行見月分後前生五間上東四今金九入学高円子外八六下来気小七山話女北午百書先名川千水半男西電"
        "校語土木聞食車何南万毎白天母火右読友左休父雨会同事自社発者地業方新場員立開手力問代明動京目通言理体田主題意不作用度強"
        "公持野以思家世多正安院心界教文元重近考画海売知道集別物使品計死特私始朝運終台広住真有口少町料工建空急止送切転研足究楽"
        "起着店病質待試族銀早映親験英医仕去味写字答夜音注帰古歌買悪図週室歩風紙黒花春赤青館屋色走秋夏習駅洋旅服夕借曜飲肉貸堂"
        "鳥飯勉冬昼茶弟牛魚兄犬妹姉漢政議民連対部合市内相定回選米実関決全表戦経最現調化当約首法性的要制治務成期取都和機平加受"
        "続進数記初指権支産点報済活原共得解交資予向際勝面告反判認参利組信在件側任引求所次昨論官増係感情投示変打直両式確果容必"
        "演歳争談能位置流格疑過局放常状球職与供役構割身費付由説難優夫収断石違消神番規術備宅害配警育席訪乗残想声助労例然限追商"
        "葉伝働形景落好退頭負渡失差末守若種美命福望非観察段横深申様財港識呼達良候程満敗値突光路科積他処太客否師登易速存飛号単"
        "座破除完降責危給苦迎園具辞因馬愛富未適婦寄込類余王返妻背熱宿薬険頼覚船途許便留精散静婚喜幸等老曲払庭徒勤居雑欠更刻"
        "氏佐藤鈴高橋伊渡辺辻村林加吉松井斎清崎森池阿島岡谷近坂遠三浦竹内郎次花咲翔蓮結衣莉健誠浩恵紀智香奈穂府県区丁阪"
        "埼玉葉知兵庫茨城広宮潟岐阜群栃熊鹿児沖縄滋賀媛良手形井梨歌取根徳佐株総営課係社番舗価格量額請求納入荷倉帳票伝門池沼堰"
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
    "koi8-u": _RUSSIAN,
    "iso8859-5": _RUSSIAN + "№§",
    "cp866": _RUSSIAN + "№",
    "cp1253": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώ" + _MARKS_OF_TEXT,
    "cp1255": "אבגדהוזחטיכלמנסעפצקרשתםןךףץ" + _MARKS_OF_TEXT,
    "cp1256": "ابتثجحخدذرزسشصضطظعغفقكلمنهويىةأإآءئؤ،؛؟" + _MARKS_OF_TEXT,
    "cp874": "กขคงจชซญณดตถทนบปผพฟภมยรลวศษสหอะัาำิีึืุูเแโใไ็่้์" + "“”‘’…–",
}
"""The most common characters of the languages of a codec."""

_LATIN = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1257", "cp850", "cp852", "mac-roman")
_OTHER = ("cp1251", "koi8-u", "iso8859-5", "cp866", "cp1253", "cp1255", "cp1256", "cp874")
_COMMON["cp850"] = _COMMON["mac-roman"] = _WESTERN
_COMMON["cp852"] = _COMMON["cp1250"]

_NAMES = {
    "utf-8": "UTF-8",
    "gb18030": "GB18030",
    "big5hkscs": "Big5",
    "cp932": "Shift JIS",
    "euc_jp": "EUC-JP",
    "cp949": "EUC-KR",
    "iso2022_jp": "ISO-2022-JP",
    "iso2022_kr": "ISO-2022-KR",
    "iso8859-2": "ISO 8859-2",
    "iso8859-5": "ISO 8859-5",
    "iso8859-15": "ISO 8859-15",
    "koi8-u": "KOI8",
    "mac-roman": "Mac Roman",
    "cp850": "CP850",
    "cp852": "CP852",
    "cp866": "CP866",
    "cp874": "TIS-620",
    "latin-1": "ISO 8859-1",
}
"""Names of codecs for people; the others are Windows code pages."""

_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "koi8-r": "koi8-u",
}
"""The codecs that files mean by the names of smaller ones, as browsers read them."""

_DECLARED = frozenset({*_NAMES, *_COMMON, *_SUPERSETS, "utf-8-sig", "utf-16", "utf-32", "hz", "euc_jp"})

_C1 = re.compile(rb"[\x80-\x9f]")
_RUN = re.compile(rb"[\x80-\xff]{3,}")
"""A run of non-ASCII letters, such as words of other scripts; Latin words mix them with ASCII letters."""

_TOLERANCE = 0.02
"""Share of broken characters that a legacy encoding may have."""

_WIDE_COMMON = frozenset(map(chr, (*range(0x3000, 0x3020), *range(0x3041, 0x30FF), *range(0xFF01, 0xFF5F))))
"""Kana, and the punctuation and letters of full width."""

_KANA = re.compile("[\u3041-\u30fe]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_HAN = re.compile("[\u4e00-\u9fff]")
_RARE = re.compile("[\x80-\x9f\ue000-\uf8ff\uff61-\uff9f]")
_BROKEN = "\ufffd"
_GREEK_VOWELS = re.compile("[ΰΐάέήίόύώΑ-ΫΆΈ-Ώ]")
"""An accented vowel or a capital of Greek: no text of some words is without."""

_WITHIN_WORD = re.compile("(?<=[^\\W\\d_])[„…«»°•§©®€№×½](?=[^\\W\\d_])")
"""A sign that stands between words only."""

_LATIN_9 = re.compile("¤|(?<=[a-zà-ÿ])[¦¨´¸¼½¾]|[¦¨´¸¼½](?=[a-zà-ÿ])")
"""Signs of Windows-1252 in places where ISO 8859-15 has a euro sign or a letter."""


class Decoded(NamedTuple):
    """A text, and remarks about its encoding."""

    text: str
    warnings: list[str]


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


def decode(data: bytes, declared: str | None = None) -> Decoded:
    """The text of bytes: UTF-32, UTF-16 or UTF-8 if they are valid, else as `declared`, else as they look.

    The whole of the data counts. Broken characters become U+FFFD.
    """
    if codec := wide(data[:_SAMPLE]):
        return _with_broken(data, codec, guessed=False)
    if escaped := next((codec for escape, codec in _ESCAPES.items() if escape in data), None):
        return _with_broken(data, escaped, guessed=False)
    try:
        return Decoded(data.decode("utf-8-sig"), [])
    except UnicodeDecodeError:
        pass
    if _is_mostly_utf_8(data):
        return _with_broken(data, "utf-8")
    sample = _sample(data)
    if codec := _known(declared):
        text = sample.decode(codec, "replace")
        if text.count(_BROKEN) <= _TOLERANCE * len(text):
            return _with_broken(data, codec, guessed=False)
    return _with_broken(data, _likely(sample))


def _with_broken(data: bytes, codec: str, *, guessed: bool = True) -> Decoded:
    text = data.decode(codec, "replace").removeprefix("\ufeff")
    broken = text.count(_BROKEN)
    if broken and codec == "cp1252":
        return Decoded(data.decode("latin-1"), [f"encoding guessed: {_NAMES['latin-1']}"])
    remarks = [f"encoding guessed: {_NAMES.get(codec, codec.replace('cp', 'Windows-'))}"] if guessed else []
    if broken:
        remarks.append(f"{broken:,} byte{'s' * (broken > 1)} replaced")
    return Decoded(text, [", ".join(remarks)] if remarks else [])


def _is_mostly_utf_8(data: bytes) -> bool:
    """True if characters of several bytes are far more than broken ones: other encodings have them by accident only."""
    text = data.decode("utf-8", "replace")
    broken = text.count(_BROKEN)
    whole = len(text) - len(text.encode("ascii", "ignore")) - broken
    return whole >= broken


def _known(declared: str | None) -> str | None:
    """The codec of a declared name, if it is one of text."""
    try:
        codec = codecs.lookup(declared or "").name
    except (LookupError, ValueError):
        return None
    codec = _SUPERSETS.get(codec, codec)
    return codec if codec in _DECLARED or re.fullmatch(r"iso8859-\d{1,2}|cp\d{3,4}", codec) else None


def _sample(data: bytes) -> bytes:
    """The lines that are not ASCII, of the whole data."""
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)
    return sample if len(sample) <= _SAMPLE else sample[: _SAMPLE // 2] + b"\n" + sample[-_SAMPLE // 2 :]


def _likely(sample: bytes) -> str:
    high = len(sample.translate(None, bytes(range(128))))
    likelihood = {codec: _east_asian(codec, sample, high) for codec in _EAST_ASIAN}
    if any(likelihood.values()):
        return max(likelihood, key=lambda codec: likelihood[codec])
    if high > 3:  # fewer are no evidence
        likely = _OTHER if sum(map(len, _RUN.findall(sample))) > high / 2 else _LATIN
        found = max(likely, key=lambda codec: _single(codec, sample))
    else:
        found = "cp1252"
    if found == "cp1252" and not _C1.search(sample) and _LATIN_9.search(sample.decode("latin-1")):
        return "iso8859-15"
    return found


def _east_asian(codec: str, sample: bytes, high: int) -> float:
    """Likelihood that the sample, with `high` bytes above ASCII, is of a language of this codec; 0 for none."""
    counted = Counter(sample.decode(codec, "replace"))
    broken = counted.pop(_BROKEN, 0)
    signs = sum(count for sign, count in counted.items() if sign > "\xff")
    if signs < 2 or broken > max(1, _TOLERANCE * signs) or broken * 4 > signs:
        return 0.0
    text = "".join(counted)
    if sum(counted[sign] for sign in _RARE.findall(text)) > _TOLERANCE * signs:
        return 0.0
    kana, hangul, han = (
        sum(counted[sign] for sign in pattern.findall(text)) / signs for pattern in (_KANA, _HANGUL, _HAN)
    )
    japanese = codec in ("cp932", "euc_jp")
    known = _COMMON["japanese" if japanese else codec]
    common = sum(count for sign, count in counted.items() if sign in known or sign in _WIDE_COMMON) / signs
    # A second byte may be ASCII; where all are, they are more likely letters next to accented ones.
    if signs * 1.2 > high and not (japanese and common > 0.6 and signs > 3):
        return 0.0
    match codec:
        case "cp949":
            return common + hangul if hangul > 0.6 and common > 0.25 else 0.0
        case "cp932" | "euc_jp":
            return common + kana if kana + han > 0.7 and common > 0.3 else 0.0
        case _:
            return common if han > 0.6 and common > 0.25 and not kana else 0.0


def _single(codec: str, sample: bytes) -> float:
    """Share of the characters above ASCII that are common in a language of this codec, from 0 to 1."""
    text = sample.decode(codec, "replace")
    if codec == "cp1253" and not _GREEK_VOWELS.search(text):
        return 0.0
    counted = Counter(text)
    signs = sum(count for sign, count in counted.items() if sign > "\x7f")
    known = sum(counted[sign] for sign in _COMMON[codec]) - len(_WITHIN_WORD.findall(text))
    return known / max(signs, 1)
