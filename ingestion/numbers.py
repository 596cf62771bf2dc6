"""Numbers of persons, taxpayers and companies that carry their country, with the form and the check of each.

Rules kept here: a bare row of digits counts only behind the word that names it; check digits are python-stdnum's; its
functions that would ask a service online are not called. One line a number: add a country by adding a line.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

BIRTH_NUMBER: Final = "birth number"
"""Of Czechs, and in a Slovak text of Slovaks."""


@dataclass(frozen=True, slots=True)
class NumberRule:
    """One kind of number: `pattern` captures it as `n`; without `valid` its form alone is a medium Sign."""

    kind: str
    zone: str
    what: str
    pattern: re.Pattern[str]
    valid: Callable[[str], bool] | None = None


def _after(words: str, number: str) -> re.Pattern[str]:
    """Match a number only behind a word that names it, with at most 30 code points between on the same line."""
    return re.compile(rf"\b(?:{words})\b[^\d\n]{{0,30}}?\b(?P<n>{number})\b", re.IGNORECASE)


def _bare(number: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?P<n>{number})\b")


@cache
def number_rules() -> tuple[NumberRule, ...]:
    """Numbers of persons, taxpayers and companies that carry their country, with python-stdnum's check of each."""
    import stdnum.at.businessid
    import stdnum.at.tin
    import stdnum.at.vnr
    import stdnum.be.nn
    import stdnum.be.vat
    import stdnum.bg.egn
    import stdnum.bg.vat
    import stdnum.ch.ssn
    import stdnum.ch.uid
    import stdnum.cz.dic
    import stdnum.cz.rc
    import stdnum.de.idnr
    import stdnum.de.stnr
    import stdnum.dk.cpr
    import stdnum.dk.cvr
    import stdnum.ee.ik
    import stdnum.ee.registrikood
    import stdnum.es.dni
    import stdnum.es.nie
    import stdnum.es.nif
    import stdnum.fi.hetu
    import stdnum.fi.ytunnus
    import stdnum.fr.nif
    import stdnum.fr.nir
    import stdnum.fr.siren
    import stdnum.fr.siret
    import stdnum.gb.nhs
    import stdnum.gr.amka
    import stdnum.gr.vat
    import stdnum.hr.oib
    import stdnum.hu.anum
    import stdnum.ie.pps
    import stdnum.it.codicefiscale
    import stdnum.it.iva
    import stdnum.lt.asmens
    import stdnum.lv.pvn
    import stdnum.nl.bsn
    import stdnum.no.fodselsnummer
    import stdnum.pl.nip
    import stdnum.pl.pesel
    import stdnum.pl.regon
    import stdnum.pt.cc
    import stdnum.pt.nif
    import stdnum.ro.cf
    import stdnum.ro.cnp
    import stdnum.se.orgnr
    import stdnum.se.personnummer
    import stdnum.si.emso
    import stdnum.si.maticna
    import stdnum.us.ein
    import stdnum.us.ssn

    n = stdnum
    person, tax, company = "person_id", "tax_id", "company_id"
    return (
        NumberRule(
            person,
            "FR",
            "social security number",
            _bare(r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),
            n.fr.nir.is_valid,
        ),
        NumberRule(company, "FR", "SIRET", _after("SIRET", r"\d{3} ?\d{3} ?\d{3} ?\d{5}"), n.fr.siret.is_valid),
        NumberRule(company, "FR", "SIREN", _after("SIREN|RCS", r"\d{3} ?\d{3} ?\d{3}"), n.fr.siren.is_valid),
        NumberRule(
            tax,
            "DE",
            "tax identification number",
            _after(
                r"Steuer-?ID(?:-?Nr)?|Steuer-?Identifikationsnummer|IdNr|Identifikationsnummer",
                r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
            ),
            n.de.idnr.is_valid,
        ),
        NumberRule(tax, "DE", "tax number", _after(r"Steuernummer|St\.?-?Nr", r"\d{2,3}/\d{3,4}/\d{4,5}")),
        NumberRule(company, "DE", "commercial register number", _bare(r"HR[AB] ?\d{2,6}")),
        NumberRule(
            person,
            "AT",
            "social security number",
            _after("SV-?Nr|SVNR|Sozialversicherungsnummer|Versicherungsnummer", r"\d{4} ?\d{6}"),
            n.at.vnr.is_valid,
        ),
        NumberRule(
            person, "CH", "social security number", _bare(r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d{2}"), n.ch.ssn.is_valid
        ),
        NumberRule(
            company,
            "CH",
            "business identification number",
            _bare(r"CHE[- ]?\d{3}[. ]?\d{3}[. ]?\d{3}"),
            n.ch.uid.is_valid,
        ),
        NumberRule(
            person,
            "BE",
            "national number",
            _after(
                "Rijksregisternummer|INSZ|NISS|numéro (?:de registre )?national",
                r"\d\d[. ]?\d\d[. ]?\d\d[- ]?\d{3}[. ]?\d\d",
            ),
            n.be.nn.is_valid,
        ),
        NumberRule(
            person,
            "NL",
            "citizen service number",
            _after("BSN|Burgerservicenummer|Sofinummer", r"\d{4}[. ]?\d{2}[. ]?\d{3}|\d{9}"),
            n.nl.bsn.is_valid,
        ),
        NumberRule(person, "ES", "identity number", _after("DNI", r"\d{8}-?[A-Z]"), n.es.dni.is_valid),
        NumberRule(
            person, "ES", "identity number of foreigners", _after("NIE", r"[XYZ]-?\d{7}-?[A-Z]"), n.es.nie.is_valid
        ),
        NumberRule(tax, "ES", "tax number", _after("NIF|CIF", r"[A-Z]?-?\d{7,8}-?[A-Z0-9]"), n.es.nif.is_valid),
        NumberRule(
            person,
            "IT",
            "codice fiscale",
            _bare(r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]"),
            n.it.codicefiscale.is_valid,
        ),
        NumberRule(tax, "IT", "partita IVA", _after(r"Partita IVA|P\. ?IVA|P\.?I", r"\d{11}"), n.it.iva.is_valid),
        NumberRule(person, "PL", "PESEL", _after("PESEL", r"\d{11}"), n.pl.pesel.is_valid),
        NumberRule(
            tax, "PL", "NIP", _after("NIP", r"\d{3}-?\d{3}-?\d{2}-?\d{2}|\d{3}-\d{2}-\d{2}-\d{3}"), n.pl.nip.is_valid
        ),
        NumberRule(company, "PL", "REGON", _after("REGON", r"\d{14}|\d{9}"), n.pl.regon.is_valid),
        NumberRule(
            tax, "PT", "taxpayer number", _after("NIF|NIPC|contribuinte", r"\d{3} ?\d{3} ?\d{3}"), n.pt.nif.is_valid
        ),
        NumberRule(
            person,
            "SE",
            "personal number",
            _after("Personnummer|Personnr", r"(?:\d\d)?\d{6}[-+]?\d{4}"),
            n.se.personnummer.is_valid,
        ),
        NumberRule(
            company,
            "SE",
            "organisation number",
            _after(r"Org\.? ?nr|Organisationsnummer", r"\d{6}-?\d{4}"),
            n.se.orgnr.is_valid,
        ),
        NumberRule(
            person, "DK", "personal number", _after(r"CPR(?:-?nr|-?nummer)?", r"\d{6}-?\d{4}"), n.dk.cpr.is_valid
        ),
        NumberRule(
            company,
            "DK",
            "company number",
            _after(r"CVR(?:-?nr|-?nummer)?", r"\d{2} ?\d{2} ?\d{2} ?\d{2}"),
            n.dk.cvr.is_valid,
        ),
        NumberRule(
            person, "FI", "personal identity code", _bare(r"\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]"), n.fi.hetu.is_valid
        ),
        NumberRule(
            company, "FI", "business id", _after("Y-tunnus|FO-nummer|Business ID", r"\d{7}-\d"), n.fi.ytunnus.is_valid
        ),
        NumberRule(person, "IE", "PPS number", _after("PPSN?", r"\d{7}[A-W][A-IW]?"), n.ie.pps.is_valid),
        NumberRule(person, "CZ", BIRTH_NUMBER, _after(r"rodné číslo|r\. ?č\.?", r"\d{6}/?\d{3,4}"), n.cz.rc.is_valid),
        NumberRule(person, "RO", "personal numeric code", _after("CNP", r"\d{13}"), n.ro.cnp.is_valid),
        NumberRule(person, "GR", "social security number", _after("ΑΜΚΑ|AMKA", r"\d{11}"), n.gr.amka.is_valid),
        NumberRule(tax, "GR", "tax number", _after("ΑΦΜ|Α\\.Φ\\.Μ|AFM", r"\d{9}"), n.gr.vat.is_valid),
        NumberRule(tax, "HR", "OIB", _after("OIB", r"\d{11}"), n.hr.oib.is_valid),
        NumberRule(tax, "HU", "tax number", _after("Adószám", r"\d{8}-\d-\d{2}"), n.hu.anum.is_valid),
        NumberRule(person, "BG", "uniform civil number", _after("ЕГН", r"\d{10}"), n.bg.egn.is_valid),
        NumberRule(
            company, "BE", "company number", _after(r"KBO|BCE|BTW|TVA", r"[01]\d{3}\.\d{3}\.\d{3}"), n.be.vat.is_valid
        ),
        NumberRule(tax, "AT", "tax number", _after(r"Steuernummer|StNr\.?", r"\d{2}-?\d{3}/\d{4}"), n.at.tin.is_valid),
        NumberRule(company, "AT", "company register number", _after("FN", r"\d{6}[a-z]"), n.at.businessid.is_valid),
        NumberRule(
            tax,
            "FR",
            "tax number",
            _after("numéro fiscal|SPI", r"\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{3}"),
            n.fr.nif.is_valid,
        ),
        NumberRule(tax, "CZ", "tax number", _after("DIČ|IČO?", r"(?:CZ)?\d{8,10}"), n.cz.dic.is_valid),
        NumberRule(person, "SI", "personal number", _after("EMŠO", r"\d{13}"), n.si.emso.is_valid),
        NumberRule(
            company, "SI", "registration number", _after("matična številka", r"\d{7}(?:\d{3})?"), n.si.maticna.is_valid
        ),
        NumberRule(person, "LT", "personal code", _after("asmens kodas|a\\. ?k", r"[3-6]\d{10}"), n.lt.asmens.is_valid),
        NumberRule(person, "LV", "personal code", _after("personas kods|p\\. ?k", r"\d{6}-\d{5}"), n.lv.pvn.is_valid),
        NumberRule(person, "EE", "personal code", _after("isikukood", r"[1-6]\d{10}"), n.ee.ik.is_valid),
        NumberRule(company, "EE", "register code", _after("registrikood", r"\d{8}"), n.ee.registrikood.is_valid),
        NumberRule(company, "RO", "company number", _after("CUI|CIF", r"(?:RO)? ?\d{2,10}"), n.ro.cf.is_valid),
        NumberRule(company, "BG", "company number", _after("ЕИК|БУЛСТАТ", r"\d{9}"), n.bg.vat.is_valid),
        NumberRule(
            person, "PT", "citizen card", _after("Cartão de Cidadão|CC", r"\d{8} ?\d ?[A-Z]{2}\d"), n.pt.cc.is_valid
        ),
        NumberRule(
            person, "GB", "NHS number", _after(r"NHS (?:no\.?|number)", r"\d{3}[ -]?\d{3}[ -]?\d{4}"), n.gb.nhs.is_valid
        ),
        NumberRule(
            person,
            "NO",
            "national identity number",
            _after("Fødselsnummer|Fnr", r"\d{6} ?\d{5}"),
            n.no.fodselsnummer.is_valid,
        ),
        NumberRule(
            person,
            "US",
            "social security number",
            _after(r"SSN|Social Security(?: No\.?| Number)?", r"\d{3}-\d{2}-\d{4}"),
            n.us.ssn.is_valid,
        ),
        NumberRule(tax, "US", "employer identification number", _after("EIN", r"\d{2}-\d{7}"), n.us.ein.is_valid),
    )
