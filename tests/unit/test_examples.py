"""The examples are what their manifest says, their questions have the answers written down, and the policy agrees."""

import re
import runpy
import tomllib
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from docx import Document
from selectolax.lexbor import LexborHTMLParser
from stdnum import iban
from stdnum.de import vat as german_vat
from stdnum.fr import siret, tva

from residency.decision import Principal
from residency.engine import Engine
from residency.fleet import Fleet
from residency.policy import PolicySet
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DOCUMENTS = EXAMPLES / "documents"
MANIFEST = tomllib.loads((EXAMPLES / "documents.toml").read_text("utf-8"))
QUESTIONS: list[dict[str, Any]] = tomllib.loads((EXAMPLES / "questions.toml").read_text("utf-8"))["question"]
FILES = {entry["file"]: entry for entry in MANIFEST["document"]}


def flat(text: str) -> str:
    return " ".join(text.split())


def pages(name: str) -> list[str]:
    """Read a document simply, by format; what has no pages is one."""
    path = DOCUMENTS / name
    match path.suffix:
        case ".pdf":
            with pypdfium2.PdfDocument(path) as pdf:
                return [flat(page.get_textpage().get_text_range()) for page in pdf]
        case ".docx":
            document = Document(str(path))
            cells = (cell for table in document.tables for row in table.rows for cell in row.cells)
            return [flat("\n".join(part.text for part in (*document.paragraphs, *cells)))]
        case ".html":
            body = LexborHTMLParser(path.read_text("utf-8")).body
            assert body is not None
            return [flat(body.text(separator=" "))]
        case _:
            return [flat(path.read_text("utf-8").replace("**", ""))]


def test_the_manifest_lists_every_document_once() -> None:
    assert sorted(FILES) == sorted(path.name for path in DOCUMENTS.iterdir())
    assert len(FILES) == len(MANIFEST["document"]) >= 14
    keys = {"file", "title", "organisation", "language", "jurisdiction", "residency", "personal", "categories"}
    for entry in MANIFEST["document"]:
        assert keys | {"classification", "outcome"} == entry.keys() - {"pages"}


def test_there_are_five_formats_three_languages_and_several_jurisdictions() -> None:
    suffixes = [Path(name).suffix for name in FILES]
    assert {suffix: suffixes.count(suffix) for suffix in set(suffixes)} == {
        ".pdf": 5,
        ".docx": 3,
        ".html": 3,
        ".md": 3,
        ".txt": 3,
    }
    assert {entry["language"] for entry in FILES.values()} == {"en", "de", "fr"}
    assert {entry["jurisdiction"] for entry in FILES.values()} == {"DE", "FR", "US", "CH"}
    assert {entry["outcome"] for entry in FILES.values()} == {"live", "quarantined", "refused"}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_of_the_format_its_name_says(name: str) -> None:
    data = (DOCUMENTS / name).read_bytes()
    match Path(name).suffix:
        case ".pdf":
            assert data.startswith(b"%PDF-")
            assert len(pages(name)) == FILES[name]["pages"] > 1
        case ".docx":
            with zipfile.ZipFile(DOCUMENTS / name) as parts:
                assert "word/document.xml" in parts.namelist()
            document = Document(str(DOCUMENTS / name))
            styles = {paragraph.style.name for paragraph in document.paragraphs if paragraph.style}
            assert {"Title", "Heading 2", "List Number", "List Bullet"} <= styles
            assert document.tables
        case ".html":
            assert data.startswith(b"<!doctype html>")
        case _:
            assert b"\x00" not in data
            assert not data.lstrip().startswith(b"<")
    # a title may be set in capitals, stand in a head of its own, or carry a subtitle
    assert flat(FILES[name]["title"].partition(":")[0]).casefold() in " ".join(pages(name)).casefold()
    assert 1_200 < len(" ".join(pages(name))) < 60_000


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: str(question["id"]))
def test_each_quote_stands_in_its_document(question: dict[str, Any]) -> None:
    if "document" not in question:
        assert question["why"]
        assert not {"quote", "page"} & question.keys()
        return
    entry = FILES[question["document"]]
    assert entry["outcome"] == "live"
    assert entry["language"] == question["language"]
    read = pages(question["document"])
    assert ("page" in question) == (len(read) > 1)
    assert flat(question["quote"]) in read[question.get("page", 1) - 1]
    asked, said = (re.sub(r"\W+", " ", question[part]).casefold().split() for part in ("question", "quote"))
    assert asked != said
    assert set(asked) & set(said), "no word in common"


def test_the_questions_cover_every_live_document_and_the_demo() -> None:
    answerable = [question for question in QUESTIONS if "document" in question]
    assert len(answerable) >= 30
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS)
    live = {name for name, entry in FILES.items() if entry["outcome"] == "live"}
    assert {question["document"] for question in answerable} == live
    demo = [question for question in QUESTIONS if question.get("demo")]
    assert sorted(q["language"] for q in demo if "document" in q) == ["de", "en", "fr"]
    assert len([q for q in demo if "document" not in q]) == 1


def found(name: str, pattern: str) -> list[str]:
    return re.findall(pattern, " ".join(pages(name)))


def test_the_signs_in_the_texts_carry_right_check_digits() -> None:
    account = r"\b(?:DE\d\d(?: \d{4}){4} \d\d|FR\d\d(?: \d{4}){5} \d{3})\b"
    for name in ("supplier-contract.docx", "mietermitteilung-kastanienhof.txt", "contrat-cadre-transport.pdf"):
        assert [iban.validate(number) for number in found(name, account)]
    for name in ("supplier-contract.docx", "mietermitteilung-kastanienhof.txt", "datenschutzhinweise-stadtwerke.html"):
        assert [german_vat.validate(number) for number in found(name, r"\bDE\d{9}\b")]
    for name in ("accord-sous-traitance-donnees.pdf", "contrat-cadre-transport.pdf"):
        assert [tva.validate(number) for number in found(name, r"\bFR\d{11}\b")]
    assert siret.validate(found("contrat-cadre-transport.pdf", r"\b\d{3} \d{3} \d{3} \d{5}\b")[0])


def test_the_document_for_quarantine_speaks_of_france_alone() -> None:
    [name] = [name for name, entry in FILES.items() if entry["outcome"] == "quarantined"]
    assert FILES[name]["jurisdiction"] == "DE"
    assert found(name, r"\+33 \d") and not found(name, r"\+49|\bDE\d{2}|Deutschland|GmbH")


def test_telephone_numbers_come_from_ranges_kept_for_fiction() -> None:
    reserved = r"\+49 (40 66969|30 23125|89 99998) |(\+33 |0)(1 99 00|3 53 01|4 65 71) |\+1 802 555 01"
    numbers = {number for name in FILES for number in found(name, r"\+\d{1,2} \d[\d ]{6,}\d|\b0[1-9](?: \d\d){4}\b")}
    assert len(numbers) > 10
    assert [number for number in numbers if not re.match(reserved, number)] == []


# --- what the policy makes of it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Engine:
    zones = Zones.load(ROOT / "policies" / "zones.toml")
    fleet = Fleet.load(EXAMPLES / "fleet.toml", zones)
    for site in fleet.sites:
        fleet.verify(site, bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    engine = Engine(zones, PolicySet.load(ROOT / "policies", zones), fleet)
    engine.admit(MANIFEST["tenant"], frozenset(MANIFEST["ceiling"]))
    return engine


def tag(entry: dict[str, Any]) -> Tag:
    return Tag.of(entry | {"jurisdictions": [entry["jurisdiction"]]})


def homes(engine: Engine, entry: dict[str, Any]) -> set[str]:
    """Sites that may store, open and embed a document declared like this: where it can be live."""
    principal = Principal("worker", MANIFEST["tenant"])
    wanted = ((Action.STORE, "shard"), (Action.OPEN, "shard"), (Action.EMBED, "embedder"))
    sites = [{p.route.site for p in engine.permitted(principal, a, [tag(entry)], k)[0]} for a, k in wanted]
    return set.intersection(*sites)


def test_the_fleet_has_two_sites_in_germany_one_in_france_and_the_foil(engine: Engine) -> None:
    assert {site.id: site.zone for site in engine.fleet.sites.values()} == {
        "de-frankfurt": "DE",
        "de-munich": "DE-BY",
        "fr-paris": "FR",
        "us-ashburn": "US",
    }
    assert {site.grade(datetime.now(UTC)) for site in engine.fleet.sites.values()} == {1}


def test_the_foil_may_hold_the_public_notice_and_nothing_else(engine: Engine) -> None:
    allowed = {name for name, entry in FILES.items() if "us-ashburn" in homes(engine, entry)}
    assert allowed == {"trail-rack-safety-notice.html"}


def test_every_document_but_the_refused_one_has_a_home(engine: Engine) -> None:
    assert {name for name, entry in FILES.items() if not homes(engine, entry)} == {
        name for name, entry in FILES.items() if entry["outcome"] == "refused"
    }
    assert homes(engine, FILES["mietermitteilung-kastanienhof.txt"]) == {"de-munich"}
    assert homes(engine, FILES["patienteninformation-tagesklinik.md"]) == {"de-frankfurt", "de-munich"}
    assert homes(engine, FILES["accord-sous-traitance-donnees.pdf"]) == {"fr-paris"}


def test_each_written_refusal_is_decided_by_its_clause(engine: Engine) -> None:
    principal = Principal("worker", MANIFEST["tenant"])
    for entry in MANIFEST["refusal"]:
        permits, refusals = engine.permitted(principal, Action.STORE, [tag(entry)], "shard")
        assert not permits
        assert entry["clause"] in {clause for refusal in refusals for clause in refusal.policies}


# --- made again -----------------------------------------------------------------------------------------------------


def test_the_sources_give_the_same_documents_again() -> None:
    build: Callable[[], dict[str, bytes]] = runpy.run_path(str(EXAMPLES / "build.py"))["build"]
    made = build()
    assert made == build()
    assert made.keys() == {name for name in FILES if Path(name).suffix in {".pdf", ".docx"}}
    stale = [name for name, data in made.items() if data != (DOCUMENTS / name).read_bytes()]
    assert not stale, "run examples/build.py and commit what it writes"
