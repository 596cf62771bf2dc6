"""One master, many formats, the same numbers; and an outsider can check it."""

import csv
import io
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pypdfium2
import pytest

from residency import receipt, verify
from residency.database import Database, metadata
from residency.decision import Clause
from residency.errors import LedgerError
from residency.exhibits import attachments
from residency.fleet import Fleet
from residency.journal import Touch
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.receipt import Draft
from residency.retention import Retention
from residency.route import Action
from residency.tag import Tag
from residency.watch import Watch
from residency.zones import Zones
from service.errors import InvalidRequestError
from service.rendering import html, pdf, sheets
from service.rendering.drawing import render
from service.reporting import About, Reporting

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
ZONES_FILE = b"""
[[edge]]
zones = ["DE", "FR"]
within = "EU"
from = 1993-11-01
source = "a treaty"
[[edge]]
zone = "US-DPF"
within = "EU"
from = 2023-07-10
source = "a decision under appeal"
contested = true
[[zone]]
codes = ["US"]
[[zone]]
codes = ["US-DPF"]
kind = "scheme"
"""
ZONES = Zones.parse(ZONES_FILE, on=NOW)
FLEET_FILE = """
[[site]]
id = "de-frankfurt"
zone = "DE"
place = "Frankfurt am Main"
operator = { name = "Mainufer Rechenzentrum GmbH", zone = "DE" }
evidence = [{ grade = 3, claim = "place", source = "TLS certificate", date = 2026-01-01 }]
holds = [
  { kind = "shard", url = "edge:" }, { kind = "vault", url = "folder:" }, { kind = "embedder", url = "bundled:" },
]
[[site]]
id = "de-munich"
zone = "DE"
place = "Munich"
operator = { name = "Isarblick Hosting AG", zone = "DE" }
evidence = [{ grade = 2, claim = "place", source = "contract 2026-4", date = 2026-01-01 }]
subprocessor_rank = 1
country_of_provision = "DE"
certificates = [{ scheme = "ISO/IEC 27001", id = "X-1", valid_until = 2026-06-30 }]
holds = [{ kind = "shard", url = "edge:" }]
[[site]]
id = "fr-lyon"
zone = "FR"
place = "Lyon"
operator = { name = "Confluence Hébergement SAS", zone = "FR" }
evidence = [{ grade = 2, claim = "place", source = "contract 2026-7", date = 2026-01-01 }]
holds = [{ kind = "shard", url = "edge:" }]
[[site]]
id = "us-east"
zones = ["US", "US-DPF"]
operator = { name = "Tidewater Cloud Inc.", zone = "US" }
evidence = [{ grade = 1, claim = "place", source = "form", date = 2026-01-01 }]
holds = [{ kind = "shard", url = "edge:" }]
"""
FLEET = Fleet.parse(FLEET_FILE, ZONES)
for _site in ("de-frankfurt", "de-munich", "fr-lyon"):
    FLEET.verify(_site, bound=True, until=NOW + timedelta(days=900))
GERMAN = Tag(frozenset({"DE"}), frozenset({"DE"}), categories=frozenset({"health"}), classification=2)
FRENCH = Tag(frozenset({"FR"}), frozenset({"EU"}))
CLAUSES = {
    "forbid-plaintext-outside-eea": Clause(
        "forbid-plaintext-outside-eea", "personal data may be in the clear only inside the EEA", "GDPR 44"
    )
}
POLICY = "sha256:" + "aa" * 32
FORMULA = "=HYPERLINK(1)"


class Rules:
    """What the engine shows of itself."""

    fleet, zones = FLEET, ZONES


class Kept:
    """Rules as they were kept: the one table, the one set."""

    def zones(self, digest):
        return ZONES if digest == ZONES.digest else None

    def clauses(self, digests, zones):
        return CLAUSES, [digest for digest in digests if digest != POLICY]


class Held:
    """An inventory of 1,239 documents."""

    rows = (
        {**GERMAN.facts(), "site": "de-frankfurt", "documents": 1204, "passages": 48_213, "bytes": 734_003_201},
        {**GERMAN.facts(), "site": "de-munich", "documents": 12, "passages": 401, "bytes": 9_000_017},
        {**FRENCH.facts(), "site": "fr-lyon", "documents": 23, "passages": 777, "bytes": 12_345_678},
    )

    def placement(self, tenant):
        return list(self.rows) if tenant == "northwind" else []


def ledger(path):
    database = Database(f"sqlite:///{path}/ledger.sqlite")
    metadata.create_all(database.engine)
    ticks = iter(range(10**6))
    return Ledger(
        database,
        LogKey.generate(),
        origin="domicile.example/ledger/1",
        digests=lambda: {"policy": POLICY, "zones": ZONES.digest, "fleet": FLEET.digest},
        software="0.1.0",
        clock=lambda: NOW - timedelta(days=2) + timedelta(seconds=next(ticks)),
    )


def steps(*touched):
    touches = [
        Touch(action, site, "shard", frozenset({tag.digest.hex()}), ("permit-in-residency",), count, 1000 * count)
        for action, site, tag, count in touched
    ]
    return receipt.steps(touches, FLEET, NOW, reason="asked")


def work(book):
    """A month of a tenant's life, small."""
    both = (GERMAN, FRENCH)

    def add(kind, *touched, **more):
        return book.append(Draft(kind, "northwind", "support", both, steps(*touched), **more))

    for tag, site in ((GERMAN, "de-frankfurt"), (GERMAN, "de-munich"), (FRENCH, "fr-lyon")):
        add("ingest", (Action.STORE, site, tag, 3), (Action.EMBED, "de-frankfurt", tag, 3))
    for _ in range(4):
        add("answer", (Action.SEARCH, "de-frankfurt", GERMAN, 5), (Action.SEARCH, "fr-lyon", FRENCH, 5),
            (Action.OPEN, "de-frankfurt", GERMAN, 2), withheld=1)  # fmt: skip
    begun = add("answer", (Action.SEARCH, "fr-lyon", FRENCH, 5), facts={"stream": "begun"})
    add("answer", facts={"begun": begun.id, "stream": "ended"})
    add("answer", (Action.SEARCH, "fr-lyon", FRENCH, 5), facts={"stream": "begun"})
    refusal = {
        "action": "embed",
        "site": "us-east",
        "tag": GERMAN.facts(),
        "policies": ["forbid-plaintext-outside-eea"],
    }
    add("refusal", refused=[{**refusal, "count": 3}])
    add("erase", (Action.ERASE, "fr-lyon", FRENCH, 1), subject="ab" * 16, facts={"points": 31, "note": FORMULA})
    add("key", facts={"event": "rotated", "jurisdiction": "DE"})
    book.append(Draft("answer", "harbour", "support"))


@pytest.fixture
def book(tmp_path):
    found = ledger(tmp_path)
    work(found)
    yield found
    found.database.close()


@pytest.fixture
def reporting(book):
    about = {"northwind": About("Northwind Clinics gGmbH", "controller", "privacy@northwind.example")}
    return Reporting(book, Held(), Rules(), Kept(), about=lambda t: about.get(t, About()), clock=lambda: NOW)


@pytest.fixture
async def bundle(reporting):
    return await reporting.residency("northwind", SINCE, UNTIL, requested_by="officer-1")


def trust(book, bundle):
    return {"report.json": receipt.canonical(bundle), "trust.txt": book.trust.encode()}


class Lost(Kept):
    """Nothing was kept of the rules that the receipts name."""

    def zones(self, digest):
        return None

    def clauses(self, digests, zones):
        return {}, list(digests)


class Narrower(Kept):
    """The table that was in force then did not hold France to be in the EU."""

    def zones(self, digest):
        then = Zones.parse(ZONES_FILE.replace(b'zones = ["DE", "FR"]', b'zone = "DE"') + NOWHERE, on=NOW)
        return then if digest == ZONES.digest else None


NOWHERE = b"""[[zone]]
codes = ["FR"]
"""


async def test_steps_whose_zones_are_not_kept_are_unknown_never_judged_by_the_present_table(book):
    reporting = Reporting(book, Held(), Rules(), Lost(), clock=lambda: NOW)
    bundle = await reporting.residency("northwind", SINCE, UNTIL)
    found = bundle["report"]
    assert found["coverage"]["rules_not_kept"] == {"zones": [ZONES.digest], "policy": [POLICY]}
    assert sum(found["coverage"]["unjudged"].values()) > 0
    assert found["verdict"]["outside"] == 0
    assert found["violations"] == []
    assert "could not be judged" in found["verdict"]["sentence"]
    page = html.page(bundle).decode()
    assert f"zones {ZONES.digest}" in page
    assert "items of steps not judged" in page


async def test_the_table_that_a_receipt_names_judges_it_not_the_present_one(book):
    narrow = Reporting(book, Held(), Rules(), Narrower(), clock=lambda: NOW)
    found = (await narrow.residency("northwind", SINCE, UNTIL))["report"]
    assert found["verdict"]["outside"] > 0
    assert {row["evidence"]["site"] for row in found["violations"]} == {"fr-lyon"}


def probed(site, time, cause="", **more):
    return {"time": time, "facts": {"event": "probe", "site": site, "cause": cause} | more}


async def test_placement_and_times_without_a_good_probe_stand_in_every_format(book):
    shard = {"kind": "server", "collection": "passages", "placement": [
        {"shard": 0, "peer": "71", "uri": "https://one.example:6335/", "state": "Active", "points": 777},
        {"shard": 0, "peer": "72", "uri": "https://two.example:6335/", "state": "Dead"},
    ]}  # fmt: skip
    states = {
        "fr-lyon": {"probed": "2026-11-23T11:50:00.000Z", "facts": {"shard": shard}},
        "de-munich": {"probed": "2026-11-20T08:00:00.000Z", "facts": {"shard": {"kind": "embedded", "points": 401}}},
    }
    entries = (
        probed("fr-lyon", "2026-11-02T08:00:00.000Z"),
        probed("fr-lyon", "2026-11-03T08:00:00.000Z", "a certificate of fr-lyon has expired"),
        probed("fr-lyon", "2026-11-04T08:00:00.000Z"),
        probed("de-munich", "2026-11-10T08:00:00.000Z",
               unprobed={"from": "2026-11-05T08:00:00.000Z", "to": "2026-11-10T08:00:00.000Z"}),
    )  # fmt: skip
    rules = Retention.parse(b'[[rule]]\nid = "law"\ncategory = "health"\nkeep_days = 3650\nlaw = "BGB 630f(3)"\n')
    watch = Watch(states, entries, looked={"fr-lyon": "2026-11-23T11:00:00.000Z"})
    reporting = Reporting(
        book, Held(), Rules(), Kept(), watch=lambda: watch, retention=lambda: rules, clock=lambda: NOW
    )
    bundle = await reporting.residency("northwind", SINCE, UNTIL)
    found = bundle["report"]
    rows = {(row["site"], row["peer"]): row for row in found["shards"]}
    assert rows["fr-lyon", "71"]["points"] == 777
    assert rows["fr-lyon", "72"]["points"] is None
    assert rows["fr-lyon", "72"]["replica"] == "Dead"
    assert (rows["de-munich", "this process"]["points"], rows["de-frankfurt", None]["probed"]) == (401, None)
    assert (rows["fr-lyon", "71"]["drift"], rows["fr-lyon", "71"]["looked"][:10]) == (0, "2026-11-23")
    assert (rows["de-munich", "this process"]["drift"], rows["de-munich", "this process"]["looked"]) == (None, None)
    assert sum({row["site"]: row["documents"] for row in found["shards"]}.values()) == found["verdict"]["documents"]
    closures = {
        (row["site"], row["kind"]): (row["from"][:10], (row["to"] or "")[:10]) for row in found["coverage"]["closures"]
    }
    assert closures["fr-lyon", "closed"] == ("2026-11-03", "2026-11-04")
    assert closures["de-munich", "unprobed"] == ("2026-11-20", "")  # and the one before, by its own row
    assert closures["de-frankfurt", "unknown"] == ("2026-11-01", "")
    for format_ in ("html", "pdf", "csv", "xlsx"):
        text = " ".join(READERS[format_]((await render(bundle, format_)).data).replace("\u200b", "").split())
        for wanted in (
            "Placement of the index" if format_ in ("html", "pdf") else "passages",
            "Dead",
            "unknown",
            "BGB 630f(3)",
            "until erased",
            "ISO/IEC 27001 X-1, expired on 2026-06-30",
        ):
            assert wanted in text, (format_, wanted)


# --- the master -----------------------------------------------------------------------------------------------------


async def test_the_numbers_are_those_of_the_ledger_and_the_inventory(bundle):
    report = bundle["report"]
    assert {k: v for k, v in report["verdict"].items() if k != "sentence"} == {
        "documents": 1239, "questions": 6, "outside": 0, "refusals": 3,
    }  # fmt: skip
    assert report["withheld"] == 4
    frankfurt = report["placement"][0]
    assert (frankfurt["jurisdiction"], frankfurt["zone"], frankfurt["site"]) == ("DE", "DE", "de-frankfurt")
    assert (frankfurt["documents"], frankfurt["questions"]) == (1204, 4)
    assert report["refusals"] == [
        {"policy": "forbid-plaintext-outside-eea", "text": "personal data may be in the clear only inside the EEA",
         "law": "GDPR 44", "count": 3, "actions": ["embed"], "sites": ["us-east"]}
    ]  # fmt: skip
    refused = [
        flow for flow in report["flows"] if (flow["action"], flow["zone"], flow["ruling"]) == ("embed", "US", "refused")
    ]
    assert sum(flow["steps"] for flow in refused) == 3
    assert all(tag in (FRENCH.facts(), GERMAN.facts()) for flow in refused for tag in flow["tags"])
    german = {"action": "search", "zone": "DE", "ruling": "permitted", "steps": 4, "items": 20, "bytes": 20_000}
    assert german | {"tags": [GERMAN.facts()]} in report["flows"]
    assert (report["transfers"]["nil"], report["transfers"]["entries"], report["violations"]) == (True, [], [])
    assert [e["subject"] for e in report["erasures"]] == ["ab" * 16]
    assert report["keys"]["openings"] == [{"reason": "asked", "count": 8}]
    assert report["head"]["rules"][0]["zones"] == ZONES.digest


async def test_coverage_and_unknowns_are_always_said(bundle):
    coverage = bundle["report"]["coverage"]
    assert (coverage["first_seq"], coverage["gaps"], coverage["probes"]) == (1, [], 0)
    assert coverage["lowest_grade"] == 2
    assert coverage["declared_only"] == ["us-east"]
    assert len(coverage["streams_not_ended"]) == 1 and len(coverage["unseen"]) >= 4
    assert [c["zone"] for c in coverage["contested"]] == ["US-DPF"]


async def test_the_sentence_claims_no_more_than_was_recorded(bundle):
    sentence = bundle["report"]["verdict"]["sentence"]
    assert "1,239 documents lie at 3 Sites that the operator's Fleet places in DE and FR" in sentence
    assert "0 transfers outside the permitted Zones and 3 refusals were recorded" in sentence
    everything = html.page(bundle).decode().lower()
    for claim in ("gdpr-compliant", "never left", "proof of location", "guarantee"):
        assert claim not in everything


async def test_a_step_outside_the_residency_is_a_violation_and_a_transfer_is_listed(book, reporting):
    book.append(Draft("search", "northwind", "support", (GERMAN,), steps((Action.SEARCH, "fr-lyon", GERMAN, 7))))
    basis = {"article": "46(2)(c)", "instrument": "2021/914", "expires": "2027-01-01"}
    book.append(
        Draft("transfer", "northwind", "support", (FRENCH,), steps((Action.TRANSFER, "us-east", FRENCH, 2)),
              facts={"basis": basis})
    )  # fmt: skip
    report = (await reporting.residency("northwind", SINCE, UNTIL))["report"]
    found = [(v["category"], v["evidence"]["site"], v["records"]) for v in report["violations"]]
    assert found == [("location", "fr-lyon", 7)]
    assert report["transfers"]["nil"] is False
    assert [(t["to"], t["basis"]["article"]) for t in report["transfers"]["entries"]] == [("US", "46(2)(c)")]
    assert report["verdict"]["outside"] == 9
    assert report["coverage"]["lowest_grade"] == 1


async def test_a_gap_in_the_numbers_is_named(book, reporting):
    from residency.leaves import leaves

    with book.database.transaction() as connection:
        connection.execute(leaves.delete().where(leaves.c.tenant == "northwind", leaves.c.seq.in_((5, 6))))
    coverage = (await reporting.residency("northwind", SINCE, UNTIL))["report"]["coverage"]
    assert coverage["gaps"] == [[5, 6]]


async def test_another_tenant_sees_nothing_of_it(reporting):
    report = (await reporting.residency("harbour", SINCE, UNTIL))["report"]
    assert report["verdict"]["documents"] == 0 and report["verdict"]["questions"] == 1
    assert "northwind" not in json.dumps(report)
    assert report["placement"] == [] and report["verdict"]["sentence"].startswith("0 documents lie nowhere")


async def test_a_report_verifies_offline_and_an_edited_one_does_not(book, bundle):
    verdict = verify.verify(trust(book, bundle))
    assert verdict.code == 0, verdict.lines
    bundle["report"]["verdict"]["outside"] = 1
    assert verify.verify(trust(book, bundle)).code == 1


async def test_a_report_is_in_the_ledger_before_it_is_given_out(book, reporting, monkeypatch):
    bundle = await reporting.residency("northwind", SINCE, UNTIL)
    entry = bundle["receipt"]["receipt"]
    assert (entry["kind"], entry["subject"]) == ("admin", bundle["report"]["head"]["id"])

    def fail(*_args, **_more):
        raise LedgerError("no disk")

    monkeypatch.setattr(book, "append", fail)
    with pytest.raises(LedgerError):
        await reporting.residency("northwind", SINCE, UNTIL)


async def test_a_period_that_ends_before_it_begins_and_an_unknown_format_are_refused(reporting, bundle):
    with pytest.raises(InvalidRequestError):
        await reporting.residency("northwind", UNTIL, SINCE)
    with pytest.raises(InvalidRequestError):
        await render(bundle, "docx")


# --- the formats ----------------------------------------------------------------------------------------------------


def pdf_text(data):
    document = pypdfium2.PdfDocument(data)
    pages = [page.get_textpage().get_text_bounded() for page in document]
    document.close()
    return " ".join(pages)


def csv_text(data):
    return " ".join(cell for row in csv.reader(io.StringIO(data.decode())) for cell in row)


def xlsx_text(data):
    """Every cell of every sheet, read without the library that wrote it."""
    ns = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(io.BytesIO(data)) as box:
        shared = [
            "".join(t.text or "" for t in si.iter(f"{ns}t")) for si in ET.fromstring(box.read("xl/sharedStrings.xml"))
        ]
        cells = []
        for name in sorted(box.namelist()):
            if name.startswith("xl/worksheets/sheet"):
                root = ET.fromstring(box.read(name))
                assert not list(root.iter(f"{ns}f")) and not list(root.iter(f"{ns}hyperlink"))
                for cell in root.iter(f"{ns}c"):
                    value = cell.find(f"{ns}v").text
                    cells.append(shared[int(value)] if cell.get("t") == "s" else value)
    return " ".join(cells)


READERS = {
    "json": lambda data: data.decode(),
    "html": lambda data: re.sub(r"<[^>]+>", " ", data.decode()),
    "pdf": pdf_text,
    "csv": csv_text,
    "xlsx": xlsx_text,
}


def figures(text):
    return set(re.findall(r"(?<![\w.])\d+(?![\w.])", re.sub(r"(?<=\d),(?=\d{3})", "", text)))


@pytest.mark.parametrize("format_", sorted(READERS))
async def test_every_format_shows_the_numbers_of_the_master(reporting, bundle, format_):
    shown = figures(READERS[format_]((await render(bundle, format_)).data))
    report = bundle["report"]
    wanted = {report["verdict"][n] for n in ("documents", "questions", "outside", "refusals")}
    wanted |= {row[n] for row in report["placement"] for n in ("documents", "passages", "bytes", "questions", "grade")}
    wanted |= {row[n] for row in report["flows"] for n in ("steps", "items", "bytes")}
    assert {str(number) for number in wanted} <= shown


@pytest.mark.parametrize("format_", sorted(READERS))
async def test_zero_is_printed_as_zero(reporting, format_):
    bundle = await reporting.residency("nobody", SINCE, UNTIL)
    text = " ".join(READERS[format_]((await render(bundle, format_)).data).split())
    if format_ == "json":
        assert '"outside":0' in text and '"nil":true' in text
    else:
        for said in ("0 transfers were recorded", "0 refusals were recorded", "0 documents are held"):
            assert said in text
        assert "0" in figures(text)


async def test_the_same_report_gives_the_same_bytes(reporting, bundle):
    for name in READERS:
        one, two = [(await render(bundle, name)).data for _ in range(2)]
        assert one == two, name


async def test_files_are_named_by_tenant_and_period(reporting, bundle):
    rendered = await render(bundle, "pdf")
    assert rendered.name == "residency-northwind-2026-11-01-to-2026-12-01.pdf"
    assert rendered.media_type == "application/pdf"


async def test_the_pdf_carries_the_signed_evidence_and_verifies(book, reporting, bundle):
    data = (await render(bundle, "pdf")).data
    files = {"report.pdf": data, "trust.txt": book.trust.encode()}
    verdict = verify.verify(files)
    assert verdict.code == 0, verdict.lines
    assert data.count(b"/AFRelationship") >= 1 and b"pdfuaid" in data and b"pdfaid" in data


async def test_the_page_stands_alone_and_has_no_script_and_no_foreign_host(bundle):
    page = html.page(bundle).decode()
    assert "<script" not in page and "style=" not in page and "<link" not in page
    assert not [url for url in re.findall(r"https?://[^\"'\s<>]+", page) if url != "http://www.w3.org/2000/svg"]
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in page


async def test_the_portal_variant_has_no_style_inside(bundle):
    page = html.page(bundle, stylesheet="/static/report.css").decode()
    assert "<style" not in page and "style=" not in page
    assert '<link rel="stylesheet" href="/static/report.css">' in page
    assert html.fragment(bundle).startswith("<article")


async def test_names_are_text_in_every_format(reporting, bundle):
    evil = '<b>x</b> #read("/etc/passwd") *bold* $1$'
    bundle["report"]["head"]["organisation"] = evil
    bundle["report"]["sites"][0]["place"] = evil
    bundle["report"]["placement"][0]["site"] = evil
    page = html.page(bundle).decode()
    assert "<b>x" not in page and "&lt;b&gt;x" in page
    assert "#read(" in pdf_text((await render(bundle, "pdf")).data)


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        ("Ελληνική Εταιρεία", "Ελληνική"),
        ("サンプル株式会社", "????????"),
        ("nul\x00 \U0001f600", "nul"),
        ("x" * 300, "xxx"),
    ],
)
async def test_a_letter_without_a_glyph_does_not_fail_the_pdf(bundle, who, seen):
    bundle["report"]["head"]["organisation"] = who
    data = pdf.document(bundle)
    assert seen in pdf_text(data)
    attached = next(attachments(data)).decode()
    assert json.loads(attached)["report"]["head"]["organisation"] == who


async def test_no_cell_becomes_a_formula(reporting, bundle):
    bundle["report"]["erasures"][0]["subject"] = FORMULA
    rows = list(csv.reader(io.StringIO((await render(bundle, "csv")).data.decode())))
    assert [cell for row in rows for cell in row if cell.endswith(FORMULA) and len(cell) < 20] == ["'" + FORMULA]
    assert FORMULA in xlsx_text((await render(bundle, "xlsx")).data)
    for begin in "=+-@\t\r":
        assert sheets.safe(begin + "1") == f"'{begin}1"
    assert sheets.safe(5) == 5 and sheets.safe("plain") == "plain"
