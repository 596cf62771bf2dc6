"""Addresses and letterheads: postcodes with their country or town, and the legal forms that only one country has.

Rules kept here: digits alone are no postcode: a country prefix, the country's name close by, one of its towns, or a
form that only one country uses must stand beside them. A legal form that countries share (GmbH, AG, SA, Ltd) points
nowhere and is left out. One line a country: add a town or a form by adding it there.
"""

import re
from collections.abc import Iterator
from typing import Final

NEAR: Final = 60
"""Code points behind a town in which its country's name is looked for."""

_NAMES: Final[dict[str, str]] = {
    "AT": "Österreich|Austria", "BE": "België|Belgique|Belgium", "BG": "България|Bulgaria",
    "CH": "Schweiz|Suisse|Svizzera|Switzerland", "CY": "Κύπρος|Cyprus", "CZ": "Česko|Česká republika|Czechia",
    "DE": "Deutschland|Germany", "DK": "Danmark|Denmark", "EE": "Eesti|Estonia", "ES": "España|Spain",
    "FI": "Suomi|Finland", "FR": "France", "GR": "Ελλάδα|Ελλάς|Greece", "HR": "Hrvatska|Croatia",
    "HU": "Magyarország|Hungary", "IT": "Italia|Italy", "LT": "Lietuva|Lithuania", "LU": "Luxembourg|Lëtzebuerg",
    "LV": "Latvija|Latvia", "NL": "Nederland|Netherlands", "NO": "Norge|Norway", "PL": "Polska|Poland",
    "PT": "Portugal", "RO": "România|Romania", "SE": "Sverige|Sweden", "SI": "Slovenija|Slovenia",
    "SK": "Slovensko|Slovakia",
}  # fmt: skip
_TOWNS: Final[dict[str, str]] = {
    "AT": "Wien|Graz|Linz|Salzburg|Innsbruck|Klagenfurt",
    "BE": "Bruxelles|Brussel|Antwerpen|Gent|Liège|Brugge|Namur|Leuven",
    "BG": "София|Пловдив|Варна|Бургас|Русе",
    "CH": "Zürich|Genève|Basel|Bern|Lausanne|Winterthur|Luzern|Lugano",
    "CY": "Λευκωσία|Λεμεσός|Λάρνακα|Nicosia|Limassol|Larnaca",
    "CZ": "Praha|Brno|Ostrava|Plzeň|Olomouc|Liberec",
    "DE": "Berlin|Hamburg|München|Köln|Frankfurt|Stuttgart|Düsseldorf|Leipzig|Dortmund|Essen|Bremen|Dresden|Hannover|"
    "Nürnberg",
    "DK": "København|Aarhus|Odense|Aalborg|Esbjerg",
    "EE": "Tallinn|Tartu|Narva|Pärnu",
    "ES": "Madrid|Barcelona|Valencia|Sevilla|Zaragoza|Málaga|Bilbao",
    "FI": "Helsinki|Espoo|Tampere|Vantaa|Oulu|Turku|Helsingfors|Åbo",
    "FR": "Paris|Marseille|Lyon|Toulouse|Nice|Nantes|Strasbourg|Montpellier|Bordeaux|Lille|Rennes",
    "GR": "Αθήνα|Θεσσαλονίκη|Πάτρα|Ηράκλειο|Athens|Thessaloniki",
    "HR": "Zagreb|Split|Rijeka|Osijek|Zadar",
    "HU": "Budapest|Debrecen|Szeged|Miskolc|Pécs|Győr",
    "IT": "Roma|Milano|Napoli|Torino|Palermo|Genova|Bologna|Firenze|Bari|Venezia|Verona",
    "LT": "Vilnius|Kaunas|Klaipėda|Šiauliai",
    "LU": "Luxembourg|Esch-sur-Alzette|Differdange",
    "LV": "Rīga|Daugavpils|Liepāja|Jelgava",
    "NL": "Amsterdam|Rotterdam|Den Haag|Utrecht|Eindhoven|Groningen|Tilburg",
    "NO": "Oslo|Bergen|Trondheim|Stavanger",
    "PL": "Warszawa|Kraków|Łódź|Wrocław|Poznań|Gdańsk|Szczecin|Lublin",
    "PT": "Lisboa|Porto|Braga|Coimbra|Funchal|Faro|Aveiro",
    "RO": "București|Cluj-Napoca|Timișoara|Iași|Constanța|Brașov",
    "SE": "Stockholm|Göteborg|Malmö|Uppsala|Västerås|Örebro|Linköping",
    "SI": "Ljubljana|Maribor|Celje|Kranj|Koper",
    "SK": "Bratislava|Košice|Prešov|Žilina|Nitra",
}  # fmt: skip
_DIGITS: Final[dict[str, str]] = {
    "AT": r"\d{4}", "BE": r"\d{4}", "BG": r"\d{4}", "CH": r"\d{4}", "CY": r"\d{4}", "CZ": r"\d{3} ?\d\d",
    "DE": r"\d{5}", "DK": r"\d{4}", "EE": r"\d{5}", "ES": r"\d{5}", "FI": r"\d{5}", "FR": r"\d{5}",
    "GR": r"\d{3} ?\d\d", "HR": r"\d{5}", "HU": r"\d{4}", "IT": r"\d{5}", "LT": r"\d{5}", "LU": r"\d{4}",
    "LV": r"\d{4}", "NL": r"\d{4} ?[A-Z]{2}", "NO": r"\d{4}", "PL": r"\d\d-\d{3}", "PT": r"\d{4}-\d{3}",
    "RO": r"\d{6}", "SE": r"\d{3} ?\d\d", "SI": r"\d{4}", "SK": r"\d{3} ?\d\d",
}  # fmt: skip
_PREFIXES: Final[dict[str, str]] = {
    "A": "AT", "B": "BE", "CH": "CH", "CY": "CY", "CZ": "CZ", "D": "DE", "DE": "DE", "DK": "DK", "EE": "EE", "E": "ES",
    "FI": "FI", "F": "FR", "GR": "GR", "HR": "HR", "H": "HU", "I": "IT", "LT": "LT", "L": "LU", "LV": "LV", "NL": "NL",
    "PL": "PL", "PT": "PT", "RO": "RO", "S": "SE", "SE": "SE", "SI": "SI", "SK": "SK", "AT": "AT", "BE": "BE",
    "FR": "FR", "IT": "IT", "ES": "ES", "HU": "HU", "LU": "LU", "BG": "BG", "NO": "NO",
}  # fmt: skip
_ALONE: Final = {"NL": re.compile(r"\d{4} ?[A-Z]{2}"), "PT": re.compile(r"\d{4}-\d{3}")}
"""Forms that no other country uses, where a town in capitals or with a capital follows."""

_POST: Final = re.compile(
    r"(?<![\w-])(?:(?P<prefix>[A-Z]{1,2})-)?"
    r"(?P<code>\d{4}-\d{3}|\d\d-\d{3}|\d{3} \d\d|\d{4} ?[A-Z]{2}|\d{4,6})(?![\w-])"
    r",?[ \t]{1,3}(?P<town>[^\W\d_a-zà-ÿ][^\W\d_]+(?:[ -][^\W\d_]+)?)"
)
_BEHIND: Final = re.compile(  # the town first: Ireland, Latvia, Malta, Romania
    r"(?P<ie>\b(?:Dublin|Cork|Galway|Limerick|Waterford|Co\. \w+)[\w ]{0,12},? "
    r"[AC-FHKNPRTV-Y]\d[\dW] ?[0-9AC-FHKNPRTV-Y]{4}\b)"
    r"|(?P<lv>\bLV-\d{4}\b)|(?P<lt>\bLT-\d{5}\b)"
    r"|(?P<mt>\b(?:Valletta|Sliema|Birkirkara|Mosta|St\. Julian's|Floriana)\b,? [A-Z]{3} \d{4}\b)"
)
_FORMS: Final = re.compile(
    r"(?P<FR>\bS\.?A\.?R\.?L\.? au capital de\b|\bSASU?\b au capital|\bRCS [A-Z][a-zé]+)"
    r"|(?P<IT>\bS\.p\.A\.|\bS\.r\.l\.)"
    r"|(?P<PL>\bsp\. z o\.\s?o\.)"
    r"|(?P<CZ>\bspol\. s r\.\s?o\.|\bIČO?: ?\d{8}, DIČ: ?CZ)"
    r"|(?P<HU>\bKft\.|\bZrt\.|\bNyrt\.)"
    r"|(?P<DK>\bApS\b)|(?P<FI>\bOyj?\b)|(?P<NL>\bB\.V\.(?!\w))|(?P<BE>\bBVBA\b|\bSPRL\b)"
    r"|(?P<PT>\b(?:Lda\.|Unipessoal))|(?P<ES>\bS\.L\.U?\.?(?!\w))"
    r"|(?P<EE>\bOÜ\b)|(?P<LV>\bSIA\b)|(?P<LT>\bUAB\b)|(?P<BG>\b(?:ЕООД|ООД|ЕАД)\b)"
    r"|(?P<GR>\b(?:Α\.Ε\.|Ι\.Κ\.Ε\.|Ε\.Π\.Ε\.))|(?P<IE>\bDAC\b|\bTeo\b)"
    r"|(?P<DE>\bGmbH & Co\. KG\b|\bUG \(haftungsbeschränkt\))"
    r"|(?P<SI>\bd\.\s?o\.\s?o\.(?=[^\n]{0,40}\bmatična))"
)

Found = tuple[str, str, str, int, int]
"""Kind, Zone, what, start, end."""


def addresses(text: str) -> Iterator[Found]:
    """Give each postal address whose country is told by more than digits."""
    for found in _POST.finditer(text):
        if zone := _country(text, found):
            yield "address", zone, "postal address", found.start(), found.end()
    for found in _BEHIND.finditer(text):
        yield "address", str(found.lastgroup).upper(), "postal address", found.start(), found.end()


def letterheads(text: str) -> Iterator[Found]:
    """Give each legal form that only one country has."""
    for found in _FORMS.finditer(text):
        yield "letterhead", str(found.lastgroup), "legal form", found.start(), found.end()


def _country(text: str, found: re.Match[str]) -> str:
    code, town = found["code"], found["town"]
    if found["prefix"]:
        zone = _PREFIXES.get(found["prefix"], "")
        return zone if zone and re.fullmatch(_DIGITS[zone], code) else ""
    fitting = [zone for zone, digits in _DIGITS.items() if re.fullmatch(digits, code)]
    behind = text[found.start("town") : found.end() + NEAR]
    for zone in fitting:
        if re.match(rf"(?:{_TOWNS[zone]})\b", town):
            return zone
    for zone in fitting:
        if re.search(rf"(?:^|[\n,;(–-])\s*(?:{_NAMES[zone]})\b", behind[len(town) :], re.IGNORECASE):
            return zone
    return next((zone for zone, form in _ALONE.items() if form.fullmatch(code)), "")
