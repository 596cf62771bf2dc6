"""A labelled set for the tagger, made by templates: 27 countries, 22 languages, numbers that hold, hard negatives.

Every organisation and person is made up; numbers are drawn until python-stdnum's check holds, so they name nobody on
purpose. The same seed gives the same set. Each kind of document is written in its country's language; the words of the
sentences were chosen as people write them, inflected, before the rules of `policies/tagging.toml` were tuned.
"""

import hashlib
import random
import string
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stdnum import iban
from stdnum.eu import vat


@dataclass(frozen=True, slots=True)
class Labelled:
    """One document with what a tagger should say: `country` "" where it points nowhere."""

    id: str
    kind: str
    text: str
    country: str
    home: str
    """The country whose letter it is, whether its text shows it or not."""
    categories: frozenset[str]


# country: language, IBAN's shape, VAT's shape, telephone, address, legal form
_COUNTRIES: dict[str, tuple[str, str, str, str, str, str]] = {
    "AT": ("de", "9" * 16, "ATU99999999", "+43 1 588580", "Lindengasse 4\n1070 Wien", "GmbH"),
    "BE": ("nl", "9" * 12, "BE0999999999", "+32 2 512 34 56", "Kastanjelaan 9\n2000 Antwerpen", "BV"),
    "BG": ("bg", "AAAA" + "9" * 14, "BG999999999", "+359 2 987 6543", "ул. Липа 7\n1000 София", "ООД"),
    "CY": ("el", "9" * 24, "CY99999999A", "+357 22 345678", "Οδός Ελιάς 3\n1065 Λευκωσία", "Λτδ"),
    "CZ": ("cs", "9" * 20, "CZ99999999", "+420 224 123 456", "Lipová 12\n110 00 Praha", "spol. s r.o."),
    "DE": ("de", "9" * 18, "DE999999999", "+49 30 22712345", "Ahornweg 5\n10115 Berlin", "GmbH & Co. KG"),
    "DK": ("da", "9" * 14, "DK99999999", "+45 33 12 34 56", "Lindevej 8\n2100 København", "ApS"),
    "EE": ("et", "9" * 16, "EE999999999", "+372 640 1234", "Pärna 6\n10111 Tallinn", "OÜ"),
    "ES": ("es", "9" * 20, "ESB99999999", "+34 915 123 456", "Calle del Olmo 11\n28012 Madrid", "S.L."),
    "FI": ("fi", "9" * 14, "FI99999999", "+358 9 1234567", "Koivukatu 2\n00100 Helsinki", "Oy"),
    "FR": ("fr", "9" * 23, "FR99999999999", "+33 1 42 68 53 00", "8 rue des Tilleuls\n75011 Paris", "SARL"),
    "GR": ("el", "9" * 23, "EL999999999", "+30 21 0123 4567", "Οδός Ακακίας 5\n105 57 Αθήνα", "Α.Ε."),
    "HR": ("hr", "9" * 17, "HR99999999999", "+385 1 4567 890", "Lipova 3\n10000 Zagreb", "d.o.o."),
    "HU": ("hu", "9" * 24, "HU99999999", "+36 1 234 5678", "Hársfa utca 10\n1074 Budapest", "Kft."),
    "IE": ("en", "AAAA" + "9" * 14, "IE9999999A", "+353 1 234 5678", "4 Alder Lane\nDublin 2, D02 X285", "Ltd"),
    "IT": ("it", "A" + "9" * 22, "IT99999999999", "+39 06 12345678", "Via dei Tigli 7\n00184 Roma", "S.r.l."),
    "LT": ("lt", "9" * 16, "LT999999999", "+370 5 212 3456", "Liepų g. 4\nLT-01100 Vilnius", "UAB"),
    "LU": ("fr", "9" * 16, "LU99999999", "+352 26 12 34 56", "3, rue des Érables\nL-2449 Luxembourg", "S.A."),
    "LV": ("lv", "AAAA" + "9" * 13, "LV99999999999", "+371 6712 3456", "Liepu iela 5\nRīga, LV-1010", "SIA"),
    "MT": ("en", "AAAA" + "9" * 23, "MT99999999", "+356 2123 4567", "Olive Street 9\nValletta VLT 1117", "Ltd"),
    "NL": ("nl", "AAAA" + "9" * 10, "NL999999999B99", "+31 20 123 4567", "Beukenlaan 21\n1012 AB Amsterdam", "B.V."),
    "PL": ("pl", "9" * 24, "PL9999999999", "+48 22 123 45 67", "ul. Lipowa 3\n00-001 Warszawa", "sp. z o.o."),
    "PT": ("pt", "9" * 21, "PT999999999", "+351 21 123 4567", "Rua das Tílias 6\n1200-109 Lisboa", "Lda."),
    "RO": ("ro", "AAAA" + "9" * 16, "RO99999999", "+40 21 312 3456", "Strada Teiului 2\n010011 București", "S.R.L."),
    "SE": ("sv", "9" * 20, "SE999999999901", "+46 8 123 456 78", "Lindgatan 14\n111 22 Stockholm", "AB"),
    "SI": ("sl", "9" * 15, "SI99999999", "+386 1 234 5678", "Lipova ulica 8\n1000 Ljubljana", "d.o.o."),
    "SK": ("sk", "9" * 20, "SK9999999999", "+421 2 1234 5678", "Lipová 9\n811 01 Bratislava", "s.r.o."),
}  # fmt: skip

_SENTENCES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("tagging_sentences.toml").read_text())


def numbers_of_persons() -> dict[str, tuple[str, str, Callable[[str], bool]]]:
    """Give by country the word before a person's number, its shape, and its check."""
    from stdnum.at import vnr
    from stdnum.be import nn
    from stdnum.bg import egn
    from stdnum.cz import rc
    from stdnum.dk import cpr
    from stdnum.ee import ik
    from stdnum.es import dni
    from stdnum.fi import hetu
    from stdnum.fr import nir
    from stdnum.gr import amka
    from stdnum.ie import pps
    from stdnum.it import codicefiscale
    from stdnum.lt import asmens
    from stdnum.lv import pvn
    from stdnum.nl import bsn
    from stdnum.pl import pesel
    from stdnum.ro import cnp
    from stdnum.se import personnummer
    from stdnum.si import emso
    from stdnum.sk import rc as sk_rc

    return {
        "AT": ("SVNR", "9999040586", vnr.is_valid), "BE": ("Rijksregisternummer", "86.05.04-999.99", nn.is_valid),
        "BG": ("ЕГН", "8605049999", egn.is_valid), "CZ": ("rodné číslo", "865504/9999", rc.is_valid),
        "DK": ("CPR-nr", "040586-9999", cpr.is_valid), "EE": ("isikukood", "48605049999", ik.is_valid),
        "ES": ("DNI", "99999999A", dni.is_valid), "FI": ("henkilötunnus", "040586-999A", hetu.is_valid),
        "FR": ("n° de sécurité sociale", "2 86 05 75 999 999 99", nir.is_valid),
        "GR": ("ΑΜΚΑ", "04058699999", amka.is_valid),
        "IE": ("PPSN", "9999999A", pps.is_valid), "IT": ("codice fiscale", "VRDNNA86E44H501A", codicefiscale.is_valid),
        "LT": ("asmens kodas", "48605049999", asmens.is_valid), "LV": ("personas kods", "040586-19999", pvn.is_valid),
        "NL": ("BSN", "999999999", bsn.is_valid), "PL": ("PESEL", "86050499999", pesel.is_valid),
        "RO": ("CNP", "2860504409999", cnp.is_valid), "SE": ("Personnummer", "860504-9999", personnummer.is_valid),
        "SI": ("EMŠO", "0405986505999", emso.is_valid), "SK": ("rodné číslo", "865504/9999", sk_rc.is_valid),
    }  # fmt: skip


def _drawn(dice: random.Random, shape: str, valid: Callable[[str], bool], last: int = 200_000) -> str:
    """Draw digits for the nines and letters for the As until the check holds."""
    free = [at for at, sign in enumerate(shape) if sign == "9" or (sign == "A" and at)]
    for _ in range(last):
        made = list(shape)
        for at in free:
            made[at] = dice.choice(string.digits if shape[at] == "9" else string.ascii_uppercase)
        if valid("".join(made)):
            return "".join(made)
    raise AssertionError(f"no number of the shape {shape}")


def _iban(dice: random.Random, country: str) -> str:
    shape = _COUNTRIES[country][1]
    for _ in range(20_000):
        body = "".join(dice.choice(string.digits if sign == "9" else string.ascii_uppercase) for sign in shape)
        made = country + iban.calc_check_digits(country + "00" + body) + body
        if iban.is_valid(made):
            return " ".join(made[at : at + 4] for at in range(0, len(made), 4))
    raise AssertionError(country)


def _vat(dice: random.Random, country: str) -> str:
    shape = _COUNTRIES[country][2]
    prefix, rest = shape[:2], shape[2:]
    fixed = {"ESB": "B", "ATU": "U"}.get(shape[:3], "")
    return (
        prefix
        + fixed
        + _drawn(dice, " " + rest[len(fixed) :], lambda body: bool(vat.is_valid(prefix + fixed + body[1:])))[1:]
    )


def _broken(number: str) -> str:
    """Change one digit, so that no check holds."""
    for at in [place for place, sign in enumerate(number) if sign.isdigit()][4:]:
        made = number[:at] + str((int(number[at]) + 1) % 10) + number[at + 1 :]
        if not vat.is_valid(made) and not iban.is_valid(made.removeprefix("IBAN ")):
            return made
    raise AssertionError("every change of a digit holds")


def labelled(seed: int = 5) -> Iterator[Labelled]:
    """Give the set: 14 documents of each of 27 countries."""
    dice = random.Random(seed)
    persons = numbers_of_persons()
    for country, (language, _, _, phone, address, form) in _COUNTRIES.items():
        bill, staff, health, money, secret, plain, near = _SENTENCES[language].values()
        name = f"Nordbruk {form}"

        def person(country: str = country) -> str:
            if country not in persons:
                return ""
            word, shape, valid = persons[country]
            return f"{word}: {_drawn(dice, shape, valid)}"

        def account(country: str = country) -> str:
            return f"IBAN {_iban(dice, country)}"

        others = [each for each in _COUNTRIES if each != country and _COUNTRIES[each][0] != language]
        foreign = dice.choice(others)
        head, tax, known = f"{name}\n{address}", _vat(dice, country), bool(persons.get(country))
        people = "\n".join(person() for _ in range(3)) if known else account()
        rows: tuple[tuple[str, str, str, set[str]], ...] = (
            ("bill", f"{head}\n{phone}\n{tax}\n\n{bill}\n{account()}", country, set()),
            ("bill-short", f"{name}\n{tax}\n\n{bill}", country, set()),
            ("letter", f"{head}\n{phone}\n\n{plain}", country, set()),
            ("address", f"{address}\n\n{plain}", country, set()),
            ("staff", f"{head}\n\n{staff.format(id=person())}", country, {"personal"}),
            ("list", f"{plain}\n{people}", country, {"personal"} if known else set()),
            ("health", f"{head}\n\n{health}\n{person()}", country, {"health"} | ({"personal"} if known else set())),
            ("health-bare", f"{health} {plain}", "", {"health"}),
            ("money", f"{head}\n{account()}\n\n{money}", country, {"finance"}),
            ("secret", f"{name}\n{phone}\n\n{secret} {plain}", country, {"trade-secret"}),
            ("supplier", f"{head}\n{tax}\n\n{bill}\nIBAN {_iban(dice, foreign)}", country, set()),
            ("plain", f"{plain} {bill}", "", set()),
            ("near", f"{near} {plain} 2026-1117, 48 204 17.", "", set()),
            ("broken", f"{plain}\n{_broken(account())}\n{_broken(tax)}", "", set()),
        )
        for kind, text, points, categories in rows:
            yield Labelled(f"{country}-{kind}", kind, text, points, country, frozenset(categories))


def halves(found: list[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Part a set into the half that the rules are tuned on and the half that is held out, by a digest of the id."""

    def held(item: Labelled) -> bool:
        return bool(hashlib.sha256(item.id.encode()).digest()[0] % 2)

    return [item for item in found if not held(item)], [item for item in found if held(item)]
