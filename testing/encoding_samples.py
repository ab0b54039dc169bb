"""Texts in many languages, and the legacy encodings in which people still keep them.

Each sample is a letter of a few sentences. Tests and benchmarks encode it whole, cut it to its first line, or hide a line of it
between lines of ASCII.
"""

# ruff: noqa: RUF001 - letters of other scripts look like Latin ones
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class EncodedSample:
    """A text and its bytes. ``shape`` is ``letter``, ``line`` or ``table``."""

    language: str
    codec: str
    shape: str
    text: str

    @property
    def data(self) -> bytes:
        return self.text.encode(self.codec)


_WESTERN = ("cp1252", "latin-1")
_CENTRAL = ("cp1250", "iso8859-2")

LETTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "German": (
        (*_WESTERN, "cp850", "mac-roman"),
        "Sehr geehrte Frau Müller, die Lieferung für das Gebäude an der Straße verzögert sich.\n"
        "Wir können die Türen erst nächste Woche einbauen.\nÜber die höheren Kosten möchten wir persönlich sprechen.\n",
    ),
    "French": (
        (*_WESTERN, "cp850", "mac-roman"),
        "Chère madame, le dégât des eaux a été signalé à la copropriété.\n"
        "Nous avons reçu votre lettre et l'expert viendra après la fête.\nVeuillez agréer mes salutations distinguées, Hélène.\n",
    ),
    "Spanish": (
        (*_WESTERN,),
        "Estimado señor Núñez, la reunión será mañana por la tarde en el salón pequeño.\n"
        "¿Podría usted traer también los documentos de la compañía?\nEl próximo año habrá más información.\n",
    ),
    "Portuguese": (
        (*_WESTERN,),
        "Prezado João, a reunião começa às nove horas e não pode ser adiada.\n"
        "As condições do contrato serão discutidas amanhã.\nAté já, com os melhores cumprimentos da direção.\n",
    ),
    "Italian": (
        (*_WESTERN,),
        "La società ha già pagato, perché il conto è stato chiuso lunedì.\n"
        "Così la città potrà aprire la nuova libertà di mercato.\nÈ più facile di quanto si pensi.\n",
    ),
    "Swedish": (
        (*_WESTERN, "cp850"),
        "Hej Åsa, mötet om lägenheten blir på måndag klockan nio.\n"
        "Glöm inte att ta med alla handlingar från förra året.\nHälsningar från Östersund, Björn.\n",
    ),
    "Danish": (
        (*_WESTERN,),
        "Kære Søren, mødet om færgen bliver på fredag i København.\n"
        "Vi skal også tale om prisen på øl og smørrebrød.\nHusk at tage nøglen til kælderen med.\n",
    ),
    "Finnish": (
        (*_WESTERN,),
        "Hyvää päivää, kokous pidetään tänään yläkerrassa.\n"
        "Työntekijät eivät ole vielä täällä, mutta he tulevat myöhemmin.\nTerveisiä Hämeenlinnasta.\n",
    ),
    "Icelandic": (
        (*_WESTERN,),
        "Góðan daginn, fundurinn verður haldinn á þriðjudag í Reykjavík.\n"
        "Það er mikilvægt að allir mæti á réttum tíma.\nÞetta er síðasta áminning.\n",
    ),
    "Polish": (
        _CENTRAL,
        "Szanowna Pani, proszę o przesłanie umowy do końca tygodnia.\n"
        "Właściciel mieszkania chciałby podwyższyć czynsz od stycznia.\nZażółć gęślą jaźń, napisał Łukasz.\n",
    ),
    "Czech": (
        _CENTRAL,
        "Vážený pane řediteli, děkujeme za vaši zprávu o dodávce.\n"
        "Příští týden přijede nový stroj a začneme pracovat.\nŽluťoučký kůň úpěl ďábelské ódy.\n",
    ),
    "Hungarian": (
        _CENTRAL,
        "Tisztelt Uram, a szerződés aláírása jövő héten történik.\n"
        "Kérjük, hozza magával az összes szükséges okmányt.\nÜdvözlettel a győri gyűlésről, Erzsébet.\n",
    ),
    "Croatian": (
        _CENTRAL,
        "Poštovani, račun za grijanje šaljemo sljedeći tjedan.\n"
        "Ako želite, možete ga platiti i u našoj poslovnici.\nSrdačan pozdrav iz Šibenika, Željka.\n",
    ),
    "Russian": (
        ("cp1251", "koi8-r", "iso8859-5", "cp866", "mac-cyrillic"),
        "Уважаемый Иван Петрович, договор будет подписан завтра утром.\n"
        "Съешь же ещё этих мягких французских булок.\nС уважением, отдел снабжения.\n",
    ),
    "Ukrainian": (
        ("cp1251", "koi8-u"),
        "Шановний пане, зустріч відбудеться у вівторок о десятій годині.\n"
        "Будь ласка, візьміть із собою всі документи.\nЇхній офіс розташований у центрі Києва.\n",
    ),
    "Bulgarian": (
        ("cp1251",),
        "Уважаеми господине, срещата ще се проведе в петък сутринта.\n"
        "Моля, донесете всички документи за апартамента.\nБлагодарим ви за търпението.\n",
    ),
    "Greek": (
        ("cp1253", "iso8859-7"),
        "Αγαπητέ κύριε, η συνάντηση θα γίνει αύριο το πρωί στο γραφείο.\n"
        "Παρακαλώ φέρτε μαζί σας όλα τα έγγραφα.\nΜε εκτίμηση, η διεύθυνση της εταιρείας.\n",
    ),
    "Turkish": (
        ("cp1254", "iso8859-9"),
        "Sayın müşterimiz, siparişiniz yarın öğleden önce gönderilecektir.\n"
        "Lütfen adresinizi ve telefon numaranızı bildiriniz.\nİstanbul şubemizden saygılarımızla.\n",
    ),
    "Hebrew": (
        ("cp1255", "iso8859-8"),
        "שלום רב, הפגישה תתקיים מחר בבוקר במשרד הראשי.\nנא להביא את כל המסמכים של הדירה.\nבברכה, הנהלת החברה.\n",
    ),
    "Arabic": (
        ("cp1256",),
        "السيد المحترم، سوف يعقد الاجتماع غدا صباحا في المكتب الرئيسي.\n"
        "نرجو إحضار جميع الوثائق المطلوبة.\nمع أطيب التحيات من إدارة الشركة.\n",
    ),
    "Lithuanian": (
        ("cp1257",),
        "Gerbiamas pone, susitikimas įvyks rytoj rytą mūsų įmonėje.\n"
        "Prašome atsinešti visus reikalingus dokumentus.\nAčiū už jūsų kantrybę ir pagarbą.\n",
    ),
    "Thai": (
        ("cp874", "tis-620"),
        "การประชุมจะเริ่มพรุ่งนี้เช้าที่สำนักงานใหญ่\nกรุณานำเอกสารทั้งหมดมาด้วย\nขอแสดงความนับถือ ฝ่ายบริหาร\n",
    ),
    "Japanese": (
        ("cp932", "euc-jp", "iso2022-jp"),
        "明日の会議は午前九時に始まります。\n必要な書類をすべてお持ちください。\nよろしくお願いいたします。株式会社の総務部より。\n",
    ),
    "Chinese, simplified": (
        ("gbk", "gb18030"),
        "明天上午九点在总公司召开会议。\n请携带所有需要的文件和合同。\n此致敬礼，人力资源部。\n",
    ),
    "Chinese, traditional": (
        ("big5",),
        "明天上午九點在總公司召開會議。\n請攜帶所有需要的文件和合約。\n此致敬禮，人力資源部。\n",
    ),
    "Korean": (
        ("cp949", "euc-kr"),
        "내일 아침 아홉 시에 본사에서 회의가 있습니다.\n필요한 서류를 모두 가져오시기 바랍니다.\n감사합니다. 총무부 드림.\n",
    ),
}

_ROWS = "".join(f"{number};invoice {number};{number * 17 % 100},50;paid\n" for number in range(40))


def encoded_samples(*shapes: str) -> Iterator[EncodedSample]:
    """Every letter in each of its encodings, in the given shapes."""
    for language, (codecs, letter) in LETTERS.items():
        line = letter.partition("\n")[0] + "\n"
        texts = {"letter": letter, "line": line, "table": f"number;text;amount;state\n{_ROWS}41;{line[:-1]};1,00;open\n"}
        for codec in codecs:
            for shape in shapes:
                yield EncodedSample(language, codec, shape, texts[shape])


COMMON_CODECS = ("cp1252", "latin-1", "cp1250", "cp1251", "cp932", "gbk", "gb18030", "big5", "cp949", "euc-kr", "euc-jp")
"""What most of the legacy files that people still have are in."""
