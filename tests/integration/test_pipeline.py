"""The story of a Document on the real parts: from sealed to live, to replaced, or to an end with a cause."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingestion.arrivals import Taken
from ingestion.documents import Document
from ingestion.errors import ReaderError
from ingestion.sandbox import read_file
from ingestion.states import State
from residency.decision import Ask, Permit
from residency.envelope import PAYLOAD_KEYS, PassageSealer, open_field, vector_digest
from residency.errors import KeyringError, LedgerError, SiteError
from residency.ports import Point
from residency.route import Action, Route
from tests.doubles.ingesting import APP, HashEmbedder, Ingesting, ingesting
from tests.doubles.looking import BODY, dek_of, keys_of, live, points_of, ready_again, route

GERMAN = "".join(f"Absatz {n}. Die Kündigungsfrist beträgt {n} Monate zum Quartalsende.\n\n" for n in range(1, 41))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path) as made:
        yield made


async def test_every_passage_lies_sealed_at_the_shard_and_opens_to_an_exact_slice(house: Ingesting) -> None:
    document = await live(house)
    reading = await read_file(BODY, declared_type=None, name_suffix=".txt")
    points = await points_of(house, document)
    assert len(points) == document.passages > 1 and document.pages == 1 and document.progress == 1.0
    dek = await dek_of(house, document)
    sealer = PassageSealer(
        dek, collection=bytes.fromhex(document.collection), document=bytes.fromhex(document.id), version=1,
        classification=1,
    )  # fmt: skip
    keys, numbers = await keys_of(house, document), set()
    for point in points:
        assert point.payload.keys() <= PAYLOAD_KEYS
        number = point.payload["n"]
        body = sealer.open(number, point.id, point.payload["s"])
        assert body.text == reading.text[body.start : body.end] and body.name == "notice.txt" and body.page == 1
        assert body.vd == vector_digest(point.vector)
        assert point.id == keys.point_id(document.id, 1, number)
        assert (point.payload["j"], point.payload["k"]) == ("DE", document.tag_class)
        numbers.add(number)
    assert numbers == set(range(document.passages))


async def test_no_canary_lies_in_clear_anywhere(house: Ingesting) -> None:
    await live(house, "ZXQJVK7F3E.txt", BODY + b"\n\nThe secret word is ZXQJVK7F3E, never tell.\n")
    found = [p for p in house.folder.rglob("*") if p.is_file() and b"ZXQJVK7F3E" in p.read_bytes()]
    assert found == []


async def test_work_artefacts_go_and_original_and_text_stay(house: Ingesting) -> None:
    document = await live(house)
    assert house.files() == [f"{document.id}.1.original", f"{document.id}.1.text"]
    dek = await dek_of(house, document)
    assert open_field(dek, "name", bytes.fromhex(document.id), document.name_sealed) == b"notice.txt"


async def test_the_receipt_of_indexing_names_every_site_and_every_action(house: Ingesting) -> None:
    document = await live(house)
    kinds = []
    for identifier in house.ledger.touched("northwind", document.id):
        bundle = house.ledger.bundle("northwind", identifier)
        assert bundle is not None
        receipt = bundle["receipt"]
        kinds.append((receipt["kind"], receipt["facts"]["stage"]))
    assert kinds == [("ingest", "sealed"), ("ingest", "live")]
    steps = {(step["action"], step["site"], step["kind"]) for step in receipt["steps"]}
    assert steps >= {
        ("open", "fra", "vault"), ("embed", "fra", "embedder"), ("store", "fra", "shard"), ("search", "fra", "shard"),
        ("open", "fra", "keys"),
    }  # fmt: skip
    assert {step["reason"] for step in receipt["steps"] if step["action"] == "open"} == {"indexing"}
    assert document.id not in str(receipt)


async def test_what_can_be_searched_is_counted_by_tag_site_language_and_group(house: Ingesting) -> None:
    assert house.documents.counts("northwind") == []
    english = await live(house)
    german = await live(house, "frist.txt", GERMAN.encode(), classification=2)
    board = await live(house, "board.txt", BODY + b"x", groups=frozenset({"board"}))
    french = await live(house, "avis.txt", BODY, jurisdictions=frozenset({"FR"}), collection="contrats")
    found = {(c.site, c.jurisdiction, c.language, c.tag.classification): c for c in house.documents.counts("northwind")}
    assert set(found) == {("fra", "DE", "en", 1), ("fra", "DE", "de", 2), ("par", "FR", "en", 1)}
    assert found["fra", "DE", "de", 2].passages == german.passages
    assert found["fra", "DE", "en", 1].documents == 1
    everything = house.documents.counts("northwind", groups=frozenset({"board"}))
    assert sum(count.documents for count in everything) == 4
    assert [c.site for c in house.documents.counts("northwind", [french.collection])] == ["par"]
    assert house.documents.counts("southwind") == []
    placed = house.documents.placement("northwind")
    assert {row["site"] for row in placed} == {"fra", "par"} and sum(row["documents"] for row in placed) == 4
    assert set(house.documents.live("northwind", [english.id, board.id, "0" * 32])) == {english.id, board.id}
    assert house.documents.live("southwind", [english.id]) == {}


async def test_a_new_version_replaces_the_old_one_and_its_points_go(house: Ingesting) -> None:
    first = await live(house)
    old = {point.id for point in await points_of(house, first)}
    second = await live(house, body=BODY + b"\n\nOne more section about the notice period.\n" * 9)
    assert second.id == first.id and second.version == 2
    assert house.get(first.id, 1).state is State.ARCHIVED
    new = await points_of(house, second)
    assert len(new) == second.passages and not old & {point.id for point in new}
    assert house.documents.live("northwind", [first.id])[first.id].version == 2


async def test_an_older_version_that_comes_late_never_replaces_a_newer_one(house: Ingesting) -> None:
    first = await house.taken("notice.txt", BODY)
    with house.database.transaction() as connection:  # the older one waits
        connection.exec_driver_sql("UPDATE document SET not_before = 1e12")
    second = await live(house, body=BODY + b"\n\nnew")
    with house.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE document SET not_before = 0 WHERE version = 1")
    await house.worker.drain()
    assert second.id == first.document.id
    states = [version.state for version in house.documents.versions("northwind", second.id)]
    assert states == [State.LIVE, State.ARCHIVED]
    assert len(await points_of(house, second)) == second.passages


async def test_a_text_that_points_elsewhere_waits_for_a_person(house: Ingesting) -> None:
    numbers = "IBAN FR14 2004 1010 0505 0001 3M02 606. TVA FR40303265045. IBAN FR76 3000 6000 0112 3456 7890 189."
    taken = await house.taken("facture.txt", (numbers + " Merci de payer la facture sous trente jours.").encode())
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert found.state is State.QUARANTINED and found.error == {
        "code": "tag_disputed",
        "hint": "its text points to another jurisdiction than declared; a reviewer decides",
    }
    assert await points_of_none(house, found) == 0
    assert len(house.ledger.touched("northwind", found.id)) == 2


async def points_of_none(house: Ingesting, document: Document) -> int:
    keys = await house.keyring.search_keys(
        route(house, Action.OPEN, document), tenant=document.tenant, jurisdiction="DE", site="fra", dimension=384
    )
    return 0 if keys is None else len(await points_of(house, document))


async def test_a_tag_is_narrowed_by_what_the_text_shows(house: Ingesting) -> None:
    text = (
        "IBAN DE89 3704 0044 0532 0130 00, USt-IdNr. DE136695976. " + "The rent is due on the third of a month. " * 20
    )
    document = await live(house, "rent.txt", text.encode(), jurisdictions=frozenset({"EU"}))
    assert document.tag.jurisdictions == {"EU", "DE"} and document.jurisdiction == "EU"
    assert (await dek_of(house, document)).jurisdiction == "EU"  # the key opens under the narrower Tag alone
    old = document.tag.of(document.tag.facts() | {"jurisdictions": ["EU"]})
    decision = house.engine.decide(Ask(APP, Action.OPEN, "fra", (old,), "indexing"))
    assert isinstance(decision, Permit)
    assert await house.keyring.open_deks(decision.route, "fra", [(document.dek_id, old.digest)]) == {}
    assert len(await points_of(house, document)) == document.passages


@pytest.mark.parametrize(
    ("name", "body", "cause"),
    [
        ("broken.pdf", b"%PDF-1.7 and nothing of a PDF after it", "broken_file"),
        ("blank.txt", b"   \n\n  ", "empty_text"),
        ("program.exe", b"MZ\x90\x00" + bytes(200), "unsupported_type"),
    ],
)
async def test_a_file_that_cannot_be_read_fails_with_its_cause_and_at_once(
    house: Ingesting, name: str, body: bytes, cause: str
) -> None:
    taken = await house.taken(name, body)
    assert await house.worker.drain() == 1
    found = house.get(taken.document.id)
    assert (found.state, found.cause) == (State.FAILED, cause)
    assert found.error is not None and found.error["hint"]
    again = await house.taken(name, body)
    assert (again.document.version, again.created) == (2, True)  # a failed version does not stand for the bytes


@pytest.mark.parametrize(
    ("body", "method", "error", "cause"),
    [
        ("shards", "put", SiteError("down", site="fra"), "site_unavailable"),
        ("vaults", "read", SiteError("down", site="fra"), "site_unavailable"),
        ("keyring", "open_dek", KeyringError("down"), "key_provider_unavailable"),
        ("ledger", "append", LedgerError("down"), "ledger_unavailable"),
    ],
)
async def test_what_is_down_makes_a_document_wait_and_counts_no_attempt(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch, body: str, method: str, error: Exception, cause: str
) -> None:
    taken = await house.taken("notice.txt", BODY)

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    part = getattr(house, body)
    with monkeypatch.context() as patched:
        patched.setattr(part["fra"] if isinstance(part, dict) else part, method, broken)
        for _ in range(5):  # an outage as long as five tries sends nothing to `failed`
            ready_again(house)
            await house.worker.drain()
            found = house.get(taken.document.id)
            assert found.cause == cause and found.state not in (State.FAILED, State.LIVE)
    ready_again(house)
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert (found.state, found.cause) == (State.LIVE, "")
    assert len(await points_of(house, found)) == found.passages


async def test_a_step_that_breaks_again_and_again_is_poison(house: Ingesting, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await house.taken("notice.txt", BODY)

    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(house.pipeline, "read", broken)
    for _ in range(4):
        ready_again(house)
        await house.worker.drain()
    found = house.get(taken.document.id)
    assert (found.state, found.cause) == (State.FAILED, "poison")


async def test_a_closed_site_makes_a_document_wait_until_it_opens(house: Ingesting) -> None:
    taken = await house.taken("notice.txt", BODY)
    house.engine.fleet.close("fra", "moved")
    await house.worker.drain()
    assert house.get(taken.document.id).state is State.SEALED
    from datetime import UTC, datetime, timedelta

    house.engine.fleet.verify("fra", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    await asyncio.sleep(1.1)  # the permitted Tags are looked up once a second
    await house.worker.drain()
    assert house.get(taken.document.id).state is State.LIVE


async def test_a_refusal_in_mid_story_is_recorded_once_and_waits(house: Ingesting) -> None:
    taken = await house.taken("notice.txt", BODY)
    lease = house.leases.take("fra")
    assert lease is not None
    house.engine.fleet.close("fra", "moved")
    await house.pipeline.advance(lease)
    found = house.get(taken.document.id)
    assert (found.state, found.cause) == (State.SEALED, "residency_denied")
    bundles = [house.ledger.bundle("northwind", i) for i in house.ledger.touched("northwind", found.id)]
    assert [bundle["receipt"]["kind"] for bundle in bundles if bundle] == ["ingest", "refusal"]


async def test_points_that_the_shard_lost_are_put_again(house: Ingesting, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await house.taken("notice.txt", BODY)
    shard, put = house.shards["fra"], house.shards["fra"].put
    lost: list[Point] = []

    async def lossy(may: Route, points: list[Point]) -> None:
        if not lost:
            lost.append(points[0])
            points = points[1:]
        await put(may, points)

    monkeypatch.setattr(shard, "put", lossy)
    await house.worker.drain()
    assert house.get(taken.document.id).state is State.EMBEDDED
    ready_again(house)
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert found.state is State.LIVE and len(await points_of(house, found)) == found.passages


async def test_a_collection_holds_vectors_of_one_model(house: Ingesting) -> None:
    await live(house)
    for embedder in house.embedders.values():
        embedder.digest = "sha256:" + "0" * 64
    taken = await house.taken("other.txt", BODY)
    await house.worker.drain()
    assert house.get(taken.document.id).cause == "model_changed"


async def test_a_long_document_goes_block_by_block_with_progress(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(f"word{n}" for n in range(220))
    body = "\n\n".join(f"Part {n}. {words}." for n in range(650)).encode()
    taken = await house.taken("long.txt", body)
    seen: list[float] = []
    embed = HashEmbedder.embed

    async def watched(self: HashEmbedder, *args: Any, **kwargs: Any) -> Any:
        seen.append(house.get(taken.document.id).progress)
        return await embed(self, *args, **kwargs)

    monkeypatch.setattr(HashEmbedder, "embed", watched)
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert found.state is State.LIVE and found.passages > 512
    assert len(seen) == -(-found.passages // 256) and seen == sorted(set(seen))
    assert len(await points_of(house, found)) == found.passages


async def test_a_running_worker_takes_what_arrives_and_stops_when_told(house: Ingesting) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(house.worker.run(stop))
    sent = [await house.taken(f"{n}.txt", BODY + b"%d" % n) for n in range(4)]
    async with asyncio.timeout(30):
        while any(house.get(taken.document.id).state is not State.LIVE for taken in sent):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    stop.set()
    house.worker.wake()
    await running
    assert house.leases.held() == 0


async def test_a_worker_that_is_cancelled_gives_its_document_back(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def endless(*_: Any, **__: Any) -> Any:
        started.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(house.pipeline, "read", endless)
    taken = await house.taken("notice.txt", BODY)
    running = asyncio.create_task(house.worker.run(asyncio.Event()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    monkeypatch.undo()
    await house.worker.drain()
    assert house.get(taken.document.id).state is State.LIVE


async def test_what_was_read_wrongly_says_so_without_its_text(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def chatty(*_: Any, **__: Any) -> Any:
        raise ReaderError("the secret word is ZXQJVK7F3E", reason="parse_crash")

    monkeypatch.setattr(house.pipeline, "read", chatty)
    taken = await house.taken("notice.txt", BODY)
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert found.cause == "parse_crash" and "ZXQJVK7F3E" not in str(found) + caplog.text
    assert isinstance(taken, Taken)
