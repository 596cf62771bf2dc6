"""Signs in a text that point to a Zone: IBANs, VAT and national numbers, telephone prefixes, addresses, the language.

Rules kept here: a number counts only when its check digits hold, and a bare row of digits only behind the word that
names it; each value counts once, however often a letterhead repeats it; a Sign says what it is and where, and never
holds the text; nothing is asked online (python-stdnum could ask the EU's VIES service: that function is not called).
What the Signs mean for a Tag is ruled in `tagger.py`.
"""

import bisect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from ingestion.addresses import addresses, letterheads
from ingestion.numbers import BIRTH_NUMBER, number_rules
from ingestion.readers import PageSpan

STRONG: Final = 3
"""A number of its country with valid check digits."""
MEDIUM: Final = 2
"""A form or prefix of its country, without check digits."""
WEAK: Final = 1
"""The language: many countries share one."""
MAX_EACH: Final = 200
"""Signs of one kind that are looked at; more say nothing new."""

MIN_NUMBER: Final = 8
"""Characters that the shortest IBAN or VAT number has at least."""
MIN_LETTERS: Final = 12
"""Letters below which a language is not guessed."""
SAMPLE: Final = 1_000
"""Code points taken from the start, the middle and the end to tell the language of a long text."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign: `kind` iban, vat, person_id, tax_id, company_id, phone, address, letterhead,
    category or language; `zone` an ISO 3166 code or "".

    `start` and `end` are code points of the text; `what` describes the kind, never the value.
    """

    kind: str
    zone: str
    start: int
    end: int
    strength: int
    what: str
    page: int = 0
    """Number of its page, 0 where it speaks of the whole text."""
    rule: str = ""
    """Id of the rule that found it, where one of `policies/tagging.toml` did."""


LANGUAGES: Final[dict[str, str]] = {
    "en": "", "de": "DE", "fr": "FR", "es": "ES", "it": "IT", "nl": "NL", "pt": "PT", "pl": "PL", "da": "DK",
    "sv": "SE", "fi": "FI", "el": "GR", "ro": "RO", "cs": "CZ", "hu": "HU", "bg": "BG", "hr": "HR", "sk": "SK",
    "sl": "SI", "et": "EE", "lv": "LV", "lt": "LT", "ga": "IE",
}  # fmt: skip
"""Languages told apart, with the Zone most of its texts come from; English points nowhere."""

SHORT: Final = 300
"""Code points below which small words are asked before n-grams."""
SMALL_WORDS: Final[dict[str, frozenset[str]]] = {
    code: frozenset(words.split())
    for code, words in {
        "en": "the what which when where who how is are was does do did must can may of to for and not on an",
        "de": "der die das den dem des was wie wann wo wer ist sind war muss kann darf und nicht für ein eine im",
        "fr": "le la les un une des du quel quelle quels où qui est sont était doit peut pour et ne pas au aux dans"
        " que quoi quand comment combien pourquoi à",
        "es": "el los las una qué cuál cuándo dónde quién cómo es son debe puede para y del al cuánto cuántos",
        "it": "il lo gli una che cosa quale quando dove chi come è sono deve può per non della del nel",
        "nl": "de het een wat welke wanneer waar wie hoe is zijn moet kan mag voor en niet van",
        "pt": "o os uma qual quais quando onde quem como é são deve pode para não do da ao quanto quantos em",
        "ro": "ce care cine când unde cum este sunt era au trebuie poate și nu din pe cât câte câți în lui a ale",
        "el": "το του της τι ποιο ποια ποιος πού πότε πώς είναι ήταν και δεν για στο στην από με τον την πόσο πόσα",
    }.items()
}
"""Words that nearly every question has and that are rare in the other languages."""

_WORD: Final = re.compile(r"\w+")
_VAT_ZONE: Final = {"EL": "GR", "XI": "GB"}
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_VAT: Final = re.compile(
    r"\b(AT|BE|BG|CY|CZ|DE|DK|EE|EL|ES|FI|FR|HR|HU|IE|IT|LT|LU|LV|MT|NL|PL|PT|RO|SE|SI|SK|XI|GB)"
    r"[ .-]?[0-9A-Z](?:[ .-]?[0-9A-Z]){6,12}\b"
)
_GROUPED: Final = re.compile(r"[A-Z]{2}\d\d [A-Z0-9]{4} [A-Z0-9]{4}")
_PHONE: Final = re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[ \u00a0./()-]{0,3}\d){6,14}(?!\d)")


def detect(text: str, pages: Iterable[PageSpan] = ()) -> list[Sign]:
    """Find the Signs of a text in order of place, each with its page; about 50 ms for 100,000 code points."""
    signs: list[Sign] = []
    taken: list[tuple[int, int]] = []
    seen: set[tuple[str, str, str]] = set()
    for kind, zone, what, strength, start, end in _found(text):
        value = re.sub(r"\W", "", text[start:end]).upper()
        if (kind, zone, value) in seen or any(start < theirs_end and end > theirs for theirs, theirs_end in taken):
            continue
        seen.add((kind, zone, value))
        taken.append((start, end))
        signs.append(Sign(kind, zone, start, end, strength, what))
    spoken = language(text)
    others = {sign.zone for sign in signs if sign.what != BIRTH_NUMBER}
    if spoken == "sk" or ("SK" in others and "CZ" not in others):  # both have the same numbers, and one word for them
        signs = [replace(sign, zone="SK") if sign.what == BIRTH_NUMBER else sign for sign in signs]
    signs = paged(signs, pages)
    if spoken != "und":
        signs.append(Sign("language", LANGUAGES[spoken], 0, len(text), WEAK, f"language {spoken}"))
    return sorted(signs, key=lambda sign: (sign.start, sign.end))


def paged(signs: Iterable[Sign], pages: Iterable[PageSpan]) -> list[Sign]:
    """Give each Sign the number of the page it begins on."""
    spans = sorted(pages, key=lambda span: span.start)
    begins = [span.start for span in spans]
    made: list[Sign] = []
    for sign in signs:
        at = bisect.bisect_right(begins, sign.start)
        made.append(replace(sign, page=spans[at - 1].number) if at else sign)
    return made


def language(text: str) -> str:
    """Tell the language of a text as an ISO 639-1 code, `und` when it has too few letters or none is likelier.

    The first call takes about 0.2 s and 35 MB (n-grams of 23 languages, low-accuracy mode), later ones 0.1 to 1 ms.
    """
    if len(text) > 3 * SAMPLE:
        middle = len(text) // 2
        text = f"{text[:SAMPLE]}\n{text[middle : middle + SAMPLE]}\n{text[-SAMPLE:]}"
    if len(text) < SHORT and (small := _by_small_words(text)):
        return small
    return _by_letters(text) or "und"


def _by_letters(text: str) -> str:
    """Tell the language by n-grams of letters; empty when there are too few letters or none is likelier."""
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return ""
    found = _teller().detect_language_of(text)
    return "" if found is None else _code(found)


def spoken(question: str) -> tuple[str, bool]:
    """Tell a question's language and whether it is sure: its small words and its n-grams say the same.

    Names are left out of the small words' count, since one foreign name sways a short text; where small words of two
    languages are level, n-grams choose between these.
    """
    first, *rest = question.split()
    plain = " ".join([first, *(word for word in rest if not word[:1].isupper())])
    told, likeliest = _by_letters(question), _small_words(plain)
    if len(likeliest) > 1:
        values = {_code(each.language): each.value for each in _teller().compute_language_confidence_values(question)}
        likeliest = [max(likeliest, key=lambda code: values[code])]
    small = likeliest[0] if likeliest else ""
    return small or _by_letters(plain) or told or "und", small == told != ""


def _by_small_words(text: str) -> str:
    """Tell a question's language by the small words in it; empty when none or two languages are level.

    N-grams of a dozen words guess wrong where one rare name outweighs "what is the": small words do not.
    """
    likeliest = _small_words(text)
    return likeliest[0] if len(likeliest) == 1 else ""


def _small_words(text: str) -> list[str]:
    """Give the languages that most of a text's small words are of; several when they are level, none without any."""
    words = _WORD.findall(text.casefold())
    counts = {code: sum(map(small.__contains__, words)) for code, small in SMALL_WORDS.items()}
    best = max(counts.values())
    return [code for code, count in counts.items() if count == best] if best else []


def _code(language: Any) -> str:
    return str(language.iso_code_639_1.name).lower()


@cache
def _teller() -> Any:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in LANGUAGES]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).with_low_accuracy_mode().build()


def _found(text: str) -> Iterator[tuple[str, str, str, int, int, int]]:
    """Give kind, zone, what, strength, start and end of all candidates whose check holds; the surest first."""
    from stdnum import iban
    from stdnum.eu import vat

    for found in _capped(_IBAN, text):
        fitting = _fit(found[0], iban.is_valid)
        if fitting:
            yield "iban", found[0][:2], "IBAN", STRONG, found.start(), found.start() + fitting
    for found in _capped(_VAT, text):
        if _GROUPED.match(found[0]):  # an account number that does not hold; its beginning is no VAT number
            continue
        fitting = _fit(found[0], _vat_check(found[1], vat.is_valid))
        if fitting:
            zone = _VAT_ZONE.get(found[1], found[1])
            yield "vat", zone, "VAT number", STRONG, found.start(), found.start() + fitting
    for rule in number_rules():
        for found in _capped(rule.pattern, text):
            start, end = found.span("n")
            if rule.valid is None or rule.valid(found["n"]):
                strength = MEDIUM if rule.valid is None else STRONG
                yield rule.kind, rule.zone, rule.what, strength, start, end
    yield from _phones(text)
    for kind, zone, what, start, end in (*addresses(text), *letterheads(text)):
        yield kind, zone, what, MEDIUM, start, end


def _vat_check(prefix: str, of_the_union: Callable[[str], bool]) -> Callable[[str], bool]:
    if prefix != "GB":
        return of_the_union
    from stdnum.gb import vat

    return lambda number: bool(vat.is_valid(number))


def _phones(text: str) -> Iterator[tuple[str, str, str, int, int, int]]:
    import phonenumbers

    for found in _capped(_PHONE, text):
        number = found[0]
        try:
            parsed = phonenumbers.parse("+" + number[2:] if number.startswith("00") else number, None)
        except phonenumbers.NumberParseException:
            continue
        zone = phonenumbers.region_code_for_number(parsed) if phonenumbers.is_valid_number(parsed) else None
        if zone and len(zone) == 2:  # "001" stands for numbers of no country
            yield "phone", zone, "telephone prefix", MEDIUM, found.start(), found.end()


def _capped(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for count, found in enumerate(pattern.finditer(text)):
        if count >= MAX_EACH:
            return
        yield found


def _fit(candidate: str, valid: Callable[[str], bool]) -> int:
    """Give the length of the longest start of a candidate that is valid, cut at its separators; 0 for none.

    A pattern runs on into the next word: `FR40303265045 SIREN`.
    """
    end = len(candidate)
    while end >= MIN_NUMBER:
        if valid(candidate[:end]):
            return end
        end = max((candidate.rfind(mark, 0, end) for mark in " .-"), default=-1)
    return 0
