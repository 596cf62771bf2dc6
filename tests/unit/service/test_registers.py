"""The kinds of report beside the residency report: filled in where the Ledger knows, marked where only people do."""

import io
import json
import re
import zipfile
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest

from ingestion.errors import NotFoundError
from residency import receipt, verify
from residency.journal import Touch
from residency.receipt import Draft
from residency.route import Action
from residency.violations import Violations
from service import byhand
from service.errors import InvalidRequestError, SettingsError
from service.rendering.drawing import KINDS, render
from service.reporting import About, Reporting
from tests.unit.service.test_reporting import (
    FLEET,
    FRENCH,
    GERMAN,
    NOW,
    POLICY,
    SINCE,
    UNTIL,
    Held,
    Kept,
    Rules,
    ledger,
    steps,
    work,
    xlsx_text,
)  # fmt: skip

DOCUMENT = "ab" * 16
REGISTER = """
measures = ["staff are trained once a year"]
[controller]
name = "Northwind Clinics gGmbH"
dpo = "privacy@northwind.example"
[activity.support]
purposes = "answering questions of the staff from our own documents"
subjects = ["patients", "staff"]
[activity.translation]
role = "processor"
controllers = ["Harbour Hospital"]
"""
FORBIDDEN = re.compile(
    r"gdpr[- ]compliant|\bcompliant\b|\bcompliance with the gdpr|never left|guarantee|proof of (physical )?location"
    r"|in accordance with the gdpr|\blawful\b|fully erased|cannot leave",
    re.IGNORECASE,
)


@pytest.fixture
def book(tmp_path):
    found = ledger(tmp_path)
    work(found)
    basis = {"article": "46(2)(c)", "instrument": "2021/914", "expires": "2027-01-01"}
    found.append(
        Draft("transfer", "northwind", "support", (FRENCH,), steps((Action.TRANSFER, "us-east", FRENCH, 2)),
              facts={"basis": basis, "approver": "key:1", "access": "bulk copy"})
    )  # fmt: skip
    touched = steps((Action.SEARCH, "fr-lyon", FRENCH, 1))
    found.append(
        Draft("search", "northwind", "support", (FRENCH,), touched, commits={"documents": [DOCUMENT.encode()]})
    )
    yield found
    found.database.close()


@pytest.fixture
def reporting(book, tmp_path):
    file = tmp_path / "register.toml"
    file.write_text(REGISTER)
    return Reporting(
        book,
        Held(),
        Rules(),
        Kept(),
        violations=Violations(book.database, book, clock=lambda: NOW),
        by_hand=lambda: byhand.load(file),
        about=lambda _: About("Northwind Clinics gGmbH", "controller", "privacy@northwind.example"),
        clock=lambda: NOW,
    )


async def made(reporting, kind, **more):
    return await reporting.make(kind, "northwind", SINCE, UNTIL, **more)


# --- the registers --------------------------------------------------------------------------------------------------


async def test_a_register_is_filled_in_where_the_ledger_knows_and_marked_where_it_does_not(reporting):
    report = (await made(reporting, "register"))["report"]
    assert report["controller"]["name"] == {"value": "Northwind Clinics gGmbH", "source": "by hand"}
    assert report["controller"]["representative"] == {"value": None, "source": "missing"}
    own = {entry["activity"]: entry for entry in report["article_30_1"]}
    support = own["support"]
    assert support["purposes"]["source"] == "by hand" and support["retention"]["source"] == "missing"
    assert support["categories"] == {"value": ["health"], "source": "ledger"}
    assert {row["site"] for row in support["recipients"]["value"]} == {
        "de-frankfurt",
        "de-munich",
        "fr-lyon",
        "us-east",
    }
    assert support["third_countries"] == {"value": ["DE", "FR", "US"], "source": "ledger"}  # its table has no EEA
    assert support["transfers"] == {"value": 1, "source": "ledger"}
    assert "30 days" in support["erasure_periods"]["value"]
    assert support["other_measures"]["value"] == ["staff are trained once a year"]
    others = {entry["activity"]: entry for entry in report["article_30_2"]}
    assert others["translation"]["controllers"] == {"value": ["Harbour Hospital"], "source": "by hand"}
    assert others["translation"]["receipts"] == 0 and report["missing"] > 0


async def test_the_workbook_has_a_list_and_a_sheet_for_each_activity(reporting):
    rendered = await render(await made(reporting, "register"), "xlsx", kind="register")
    with zipfile.ZipFile(io.BytesIO(rendered.data)) as box:
        names = [
            sheet.get("name") for sheet in ET.fromstring(box.read("xl/workbook.xml")).iter() if sheet.get("sheetId")
        ]
    assert names[0] == "list" and {"support-30-1", "translation-30-2"} <= set(names)
    text = xlsx_text(rendered.data)
    assert "TO BE FILLED IN" in text and "by hand" in text and "30(1)(g)" in text
    assert rendered.name == "register-northwind-2026-11-01-to-2026-12-01.xlsx"


@pytest.mark.parametrize(
    "wrong",
    ["[controler]\nname='x'", "[activity.a]\npurpose='x'", "[activity.a]\nrole='both'", "not toml", "measures = 3"],
)
def test_a_misspelt_field_of_the_file_is_refused(tmp_path, wrong):
    (tmp_path / "r.toml").write_text(wrong)
    with pytest.raises(SettingsError):
        byhand.load(tmp_path / "r.toml")
    assert byhand.load(tmp_path / "none.toml")["activity"] == {}


# --- transfers and recipients ---------------------------------------------------------------------------------------


async def test_the_transfer_log_has_every_required_field_and_says_what_was_not_recorded(reporting):
    report = (await made(reporting, "transfers"))["report"]
    (entry,) = report["entries"]
    wanted = {
        "receipt", "time", "exporter", "from", "importer", "importer_parent", "to", "onward", "categories", "tags",
        "count", "subjects", "activity", "mechanism", "instrument", "version", "expires", "assessment", "measures",
        "access", "approver", "policies", "ruling",
    }  # fmt: skip
    assert wanted <= set(entry)
    assert (entry["mechanism"], entry["instrument"], entry["access"]) == ("46(2)(c)", "2021/914", "bulk copy")
    assert (entry["to"], entry["assessment"], entry["approver"]) == ("US", None, "key:1")
    page = (await render(await made(reporting, "transfers"), "html", kind="transfers")).data.decode()
    assert "not recorded" in page and "Remote administration" in page


async def test_no_transfer_is_an_explicit_nil(reporting):
    bundle = await reporting.make("transfers", "nobody", SINCE, UNTIL)
    assert bundle["report"]["nil"] is True
    text = (await render(bundle, "csv", kind="transfers")).data.decode()
    assert "0 transfers were recorded" in text


async def test_the_recipients_of_a_document_are_those_of_its_receipts(reporting, book):
    report = (await made(reporting, "recipients", document=DOCUMENT))["report"]
    assert [(row["site"], row["operator_zone"]) for row in report["recipients"]] == [("fr-lyon", "FR")]
    assert [row["kind"] for row in report["receipts"]] == ["search"]
    everything = (await made(reporting, "recipients"))["report"]
    assert len(everything["recipients"]) > 1 and everything["receipts"] == []
    book.forget("northwind", DOCUMENT)
    gone = (await made(reporting, "recipients", document=DOCUMENT))["report"]
    assert gone["recipients"] == [] and any("empty by design" in line for line in gone["limits"])


async def test_kept_violations_stand_in_the_report_with_their_state(reporting, book):
    kept = reporting._violations.found("northwind", "key", "de-munich", policy="custody", records=4)
    reporting._violations.excepted(
        "northwind", kept.id, by="key:9", reason="moved on Friday", expires=NOW + timedelta(days=3)
    )
    book.append(Draft("search", "northwind", "support", (GERMAN,), steps((Action.SEARCH, "fr-lyon", GERMAN, 7))))
    report = (await made(reporting, "residency"))["report"]
    assert [(row["category"], row["state"]) for row in report["violations"]] == [
        ("key", "excepted"),
        ("location", "open"),
    ]
    assert [row["id"] for row in report["exceptions"]] == [kept.id]
    needed = {
        "id", "category", "subject", "begin", "detected", "resolved", "state", "policy", "evidence", "remediation",
        "acknowledged_by", "subjects", "records", "notifiable",
    }  # fmt: skip
    assert all(needed <= set(row) for row in report["violations"])
    assert report["coverage"]["paths"] and all(row["lowest_grade"] >= 0 for row in report["coverage"]["paths"])


# --- OSCAL ----------------------------------------------------------------------------------------------------------

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[45][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
PROP = {"name": r"[A-Za-z][\w.-]*", "value": r"\S.*"}
SHAPE = {
    "uuid": UUID,
    "metadata": {"title": r".+", "last-modified": TIME, "version": r".+", "oscal-version": r"1\.2\.1", "props": [PROP]},
    "import-ap": {"href": rf"#{UUID}"},
    "results": [
        {
            "uuid": UUID, "title": r".+", "description": r".+", "start": TIME, "end": TIME, "props": [PROP],
            "local-definitions": {
                "components": [
                    {"uuid": UUID, "type": "service", "title": r".+", "description": r".+", "props": [PROP],
                     "status": {"state": "operational|other"}}
                ]
            },
            "reviewed-controls": {"description": r".+", "control-selections": [{"include-all": {}}]},
            "observations": [
                {"uuid": UUID, "title": r".+", "description": r".+", "methods": ["EXAMINE"], "types": [r".+"],
                 "relevant-evidence": [{"href": rf"#{UUID}", "description": r".+"}], "collected": TIME}
            ],
            "findings": [
                {"uuid": UUID, "title": r".+", "description": r".+",
                 "target": {"type": "objective-id", "target-id": r"[A-Za-z_][\w.-]*",
                            "status": {"state": "satisfied|not-satisfied"}},
                 "related-observations": [{"observation-uuid": UUID}]}
            ],
            "remarks": r".+",
        }
    ],
    "back-matter": {
        "resources": [
            {"uuid": UUID, "title": r".+", "description": r".+",
             "rlinks": [{"href": r".+", "media-type": r".+",
                         "hashes": [{"algorithm": "SHA-256", "value": "[0-9a-f]{64}"}]}]}
        ]
    },
}  # fmt: skip


def misfits(value, shape, path="$"):
    """Where a value has not exactly the shape: every key, no other, every text whole."""
    match shape:
        case dict():
            if not isinstance(value, dict) or set(value) != set(shape):
                return [f"{path}: {sorted(set(value) ^ set(shape)) if isinstance(value, dict) else type(value)}"]
            return [found for key in shape for found in misfits(value[key], shape[key], f"{path}.{key}")]
        case [inner]:
            if not isinstance(value, list) or not value:
                return [f"{path}: no list, or empty"]
            return [found for n, each in enumerate(value) for found in misfits(each, inner, f"{path}[{n}]")]
        case _:
            good = isinstance(value, str) and re.fullmatch(shape, value, re.DOTALL)
            return [] if good else [f"{path}: {value!r}"]


async def test_the_oscal_export_has_exactly_the_shape_of_assessment_results(reporting):
    bundle = await made(reporting, "oscal")
    rendered = await render(bundle, "json", kind="oscal")
    found = json.loads(rendered.data)
    assert list(found) == ["assessment-results"]
    document = found["assessment-results"]
    assert misfits(document, SHAPE) == []
    ids = re.findall(rf'"uuid":"({UUID})"', rendered.data.decode())
    assert len(ids) == len(set(ids))
    (result,) = document["results"]
    seen = {each["uuid"] for each in result["observations"]}
    assert {link["observation-uuid"] for each in result["findings"] for link in each["related-observations"]} <= seen
    states = {each["target"]["target-id"]: each["target"]["status"]["state"] for each in result["findings"]}
    assert states == {
        "inside-residency": "satisfied", "transfers-with-basis": "satisfied", "gapless-numbers": "satisfied",
        "violations-answered": "satisfied",
    }  # fmt: skip
    assert (await render(bundle, "json", kind="oscal")).data == rendered.data


async def test_the_shape_test_sees_what_is_wrong(reporting):
    found = json.loads((await render(await made(reporting, "oscal"), "json", kind="oscal")).data)
    document = found["assessment-results"]
    for spoil in (
        lambda d: d.pop("import-ap"),
        lambda d: d.update(extra=1),
        lambda d: d["results"][0].update(start="yesterday"),
        lambda d: d["results"][0]["findings"][0]["target"]["status"].update(state="compliant"),
        lambda d: d.update(uuid="00000000-0000-1000-8000-000000000000"),
        lambda d: d["results"].clear(),
    ):
        spoiled = json.loads(json.dumps(document))
        spoil(spoiled)
        assert misfits(spoiled, SHAPE) != []


async def test_a_step_outside_and_a_bare_transfer_are_not_satisfied(reporting, book):
    book.append(Draft("search", "northwind", "support", (GERMAN,), steps((Action.SEARCH, "fr-lyon", GERMAN, 7))))
    book.append(Draft("transfer", "northwind", "support", (FRENCH,), steps((Action.TRANSFER, "us-east", FRENCH, 1))))
    found = json.loads((await render(await made(reporting, "oscal"), "json", kind="oscal")).data)
    result = found["assessment-results"]["results"][0]
    states = {each["target"]["target-id"]: each["target"]["status"]["state"] for each in result["findings"]}
    assert (
        states["inside-residency"] == states["transfers-with-basis"] == states["violations-answered"] == "not-satisfied"
    )


# --- all kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["register", "transfers", "recipients", "residency"])
async def test_every_kind_is_signed_and_in_the_ledger_and_an_edit_shows(reporting, book, kind):
    bundle = await made(reporting, kind)
    files = {"report.json": receipt.canonical(bundle), "trust.txt": book.trust.encode()}
    assert verify.verify(files).code == 0, verify.verify(files).lines
    bundle["report"]["head"]["organisation"] = "Somebody else"
    assert verify.verify({**files, "report.json": receipt.canonical(bundle)}).code == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "certificate"])
async def test_no_kind_claims_more_than_was_recorded(reporting, kind):
    bundle = await made(reporting, kind)
    form = "json" if kind == "oscal" else "html"
    for text in ((await render(bundle, form, kind=kind)).data.decode(), json.dumps(bundle)):
        assert not FORBIDDEN.search(text), FORBIDDEN.search(text)


def test_the_forbidden_words_are_found_where_they_stand():
    for claim in ("This is GDPR-compliant.", "Data never left the EU.", "a proof of location", "we guarantee"):
        assert FORBIDDEN.search(claim)


async def test_kinds_formats_and_documents_that_do_not_fit_are_refused(reporting):
    for kind, form in (("gossip", "json"), ("oscal", "html"), ("register", "pdf"), ("residency", "docx")):
        with pytest.raises(InvalidRequestError):
            await reporting.file("northwind", None, None, form, requested_by="x", kind=kind)
    for kind, document in (("residency", DOCUMENT), ("recipients", "../x"), ("certificate", ""), ("certificate", "x")):
        with pytest.raises(InvalidRequestError):
            await made(reporting, kind, document=document)


async def test_progress_is_told_while_receipts_are_read(reporting, monkeypatch):
    monkeypatch.setattr("service.reporting.EVERY", 4)
    told = []
    await made(reporting, "residency", progress=lambda done, whole: told.append((done, whole)))
    assert told[-1][0] == told[-1][1] and [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 2


# --- the certificate ------------------------------------------------------------------------------------------------


@pytest.fixture
def erased(book):
    """An erasure as `ingestion.erasure` records it, and the certificate that it keeps."""
    facts = {
        "format": "domicile-erasure/v1", "ground": "GDPR 17(1)", "requested": "2026-11-20T00:00:00.000Z", "by": "app",
        "completed": "2026-11-21T00:00:00.000Z", "scope": {"versions": 1, "passages": 3, "points": 3, "bytes": 9},
        "stores": [{"kind": "keys", "site": "fr-lyon", "method": "wrapped keys deleted", "result": "0 left"}],
        "residuals": [{"where": "backups", "what": "backups hold wrapped keys", "due": "2026-12-21T00:00:00.000Z"}],
    }  # fmt: skip
    touches = [Touch(Action.ERASE, "fr-lyon", "vault", frozenset({FRENCH.digest.hex()}), ("permit-erase",), 1)]
    done = receipt.steps(touches, FLEET, NOW)
    stored = book.append(Draft("erase", "northwind", "erasure", (FRENCH,), done, subject=DOCUMENT, facts=facts))
    known = {"document": DOCUMENT, "tenant": "northwind", "state": "complete"} | facts
    return known | {"policy": POLICY, "receipt": stored.id}


def certifying(book, erased):
    async def erasures(tenant, document):
        if (tenant, document) != (erased["tenant"], erased["document"]):
            raise NotFoundError("no such document")
        return erased

    return Reporting(book, Held(), Rules(), Kept(), erasures=erasures, clock=lambda: NOW)


async def test_a_certificate_is_signed_and_carries_the_proof_of_its_erasure(book, erased):
    bundle = await certifying(book, erased).make("certificate", "northwind", SINCE, UNTIL, document=DOCUMENT)
    files = {"c.json": receipt.canonical(bundle), "trust.txt": book.trust.encode()}
    verdict = verify.verify(files)
    assert verdict.code == 0, verdict.lines
    said = {check.name: check.text for check in verdict.checks}
    assert "2026-12-21" in said["residual"] and "not that no copy exists" in said["limits"]
    assert said["erasure"] == "the erasure's entry in the ledger says the same"


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(document="cd" * 16),
        lambda e: e["residuals"].clear(),
        lambda e: e["stores"][0].update(result="1 left"),
        lambda e: e.update(tenant="harbour"),
        lambda e: e.update(receipt="0"),
    ],
)
async def test_a_certificate_that_says_more_than_its_entry_is_false(book, erased, change):
    bundle = await certifying(book, erased).make("certificate", "northwind", SINCE, UNTIL, document=DOCUMENT)
    copy = json.loads(json.dumps(bundle))
    change(copy["report"]["erasure"])
    copy["signatures"] = [book.sign(receipt.canonical(copy["report"]))]  # the operator itself signs another text
    assert verify.verify({"c.json": receipt.canonical(copy), "trust.txt": book.trust.encode()}).code == 1


async def test_a_pending_erasure_has_no_certificate(book, erased):
    with pytest.raises(InvalidRequestError, match="not complete"):
        await certifying(book, erased | {"state": "pending"}).make(
            "certificate", "northwind", SINCE, UNTIL, document=DOCUMENT
        )
