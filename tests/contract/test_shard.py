"""What every body of the Shard port must do: the embedded one in its real child, the remote one over real HTTP."""

import asyncio
import base64
import math
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from residency.errors import RouteError, SiteError, StorageFullError
from residency.journal import recording
from residency.outlets.shards.edge import EdgeShard
from residency.outlets.shards.remote import RemoteShard
from residency.ports import Point, PointFilter, Shard, ShardQuery
from residency.route import Action, Route
from tests.doubles.qdrant_http import QdrantDouble, serving
from tests.doubles.routes import route_for

SITE = "de-frankfurt"
WIDTH = 16
OURS, THEIRS = "owner-northwind", "owner-fabrikam"


def store() -> Route:
    return route_for(Action.STORE, SITE)


def search() -> Route:
    return route_for(Action.SEARCH, SITE)


def erase() -> Route:
    return route_for(Action.ERASE, SITE)


def unit(seed: int) -> np.ndarray[Any, Any]:
    vector = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def point(number: int, *, owner: str = OURS, words: dict[int, float] | None = None, **payload: Any) -> Point:
    kept = {
        "v": 1,
        "t": owner,
        "j": "DE",
        "k": 1,
        "c": "c1",
        "d": f"d{number}",
        "n": 0,
        "e": 1,
        "s": f"sealed-{number}",
    }
    sparse = words if words is not None else {number: 1.0, 7: 0.5}
    return Point(str(UUID(int=number + 1)), unit(number), sparse, kept | payload)


def mine(**conditions: Any) -> PointFilter:
    return PointFilter(owners=(OURS,), **conditions)


async def found(shard: Shard, where: PointFilter, **question: Any) -> list[str]:
    asked = ShardQuery(where, question.get("vector", unit(1)), question.get("tokens", {7: 1.0}), 10)
    return [hit.payload["s"] for hit in (await shard.search(search(), asked)).hits]


def names(numbers: Iterable[int]) -> list[str]:
    return [f"sealed-{number}" for number in numbers]


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeShard]:
    shard = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH)
    await shard.start()
    yield shard
    await shard.aclose()


@pytest.fixture
def double() -> Iterable[QdrantDouble]:
    with serving(QdrantDouble()) as double:
        yield double


def remote_shard(double: QdrantDouble, **settings: Any) -> RemoteShard:
    given: dict[str, Any] = {"api_key": "key", "ssl_context": None, "collection": "northwind", "dimension": WIDTH}
    return RemoteShard(SITE, double.url, **(given | settings))


@pytest.fixture
async def remote(double: QdrantDouble) -> AsyncIterator[RemoteShard]:
    shard = remote_shard(double)
    await shard.start()
    yield shard
    await shard.aclose()


@pytest.fixture(params=["edge", pytest.param("remote", marks=pytest.mark.enable_socket)])
def shard(request: pytest.FixtureRequest) -> Shard:
    body: Shard = request.getfixturevalue(request.param)
    return body


# --- the port -------------------------------------------------------------------------------------------------------


async def test_a_point_comes_back_as_it_was_put(shard: Shard) -> None:
    put = point(3, words={11: 0.375, 4294967295: 2.0}, a=["g1", "g2"])
    await shard.put(store(), [put])
    (back,) = await shard.retrieve(search(), [put.id, str(uuid4())], vectors=True)
    assert (back.id, back.sparse, back.payload) == (put.id, put.sparse, put.payload)
    assert back.vector.tobytes() == put.vector.tobytes()


async def test_vectors_stay_at_the_site_unless_asked_for(shard: Shard) -> None:
    await shard.put(store(), [point(3)])
    (back,) = await shard.retrieve(search(), [point(3).id])
    assert back.vector.shape == (0,) and back.sparse == {} and back.payload == point(3).payload


async def test_nobody_finds_another_owners_points(shard: Shard) -> None:
    await shard.put(store(), [point(1), point(2, owner=THEIRS)])
    assert await found(shard, mine()) == names([1])
    assert await shard.count(search(), mine()) == 1
    assert await shard.ids(search(), mine()) == [point(1).id]
    assert sorted(await shard.ids(search(), PointFilter((OURS, THEIRS)))) == [point(1).id, point(2).id]


FILTERS: list[tuple[PointFilter, list[int]]] = [
    (mine(classes=(1, 3)), [1, 3]),
    (mine(collections=("c2",)), [3]),
    (mine(documents=("d1", "d2")), [1, 2]),
    (mine(classes=(1,), documents=("d1", "d2")), [1]),
    (mine(groups=("g1",)), [1, 2]),
    (mine(groups=()), [1]),
    (mine(groups=("g1", "g2")), [1, 2, 3]),
    (mine(), [1, 2, 3]),
    (mine(classes=()), []),
    (mine(collections=()), []),
    (mine(documents=()), []),
    (PointFilter(owners=()), []),
]


async def test_a_filter_lets_through_what_fits_every_condition(shard: Shard) -> None:
    await shard.put(store(), [point(1), point(2, k=2, a=["g1", "g9"]), point(3, k=3, c="c2", a=["g2"])])
    for where, numbers in FILTERS:
        assert sorted(await found(shard, where)) == names(numbers), where
        assert await shard.count(search(), where) == len(numbers), where
        assert sorted(await shard.ids(search(), where)) == [point(number).id for number in numbers], where


async def test_a_filter_that_let_everything_through_holds_for_what_comes_after(shard: Shard) -> None:
    where = mine(classes=(1,), collections=("c1",), groups=())
    await shard.put(store(), [point(1), point(2)])
    assert sorted(await found(shard, where)) == names([1, 2])
    await shard.put(store(), [point(3, k=2), point(4, c="c2"), point(5, a=["g1"]), point(6, owner=THEIRS)])
    assert sorted(await found(shard, where)) == names([1, 2])
    await shard.delete(erase(), [point(number).id for number in (3, 4, 5)])
    assert sorted(await found(shard, where)) == names([1, 2])
    await shard.put(store(), [point(7, c="c2")])
    assert sorted(await found(shard, where)) == names([1, 2])


async def test_every_hit_has_both_scores_whichever_leg_found_it(shard: Shard) -> None:
    far = [point(number, words={100 + number: 1.0}) for number in range(20, 30)]
    wordy = point(1, words={50: 2.0})
    await shard.put(store(), [*far, wordy])
    nearest = max(far, key=lambda each: float(each.vector @ unit(21)))
    answer = await shard.search(search(), ShardQuery(mine(), unit(21), {50: 1.0}, limit=1))
    hits = {hit.id: hit for hit in answer.hits}
    assert set(hits) == {nearest.id, wordy.id}
    assert hits[wordy.id].dense == pytest.approx(float(wordy.vector @ unit(21)), abs=1e-6)
    assert hits[wordy.id].lexical == pytest.approx(2.0 * answer.idf[50], rel=1e-5)
    assert hits[nearest.id].dense == pytest.approx(1.0, abs=1e-6) and hits[nearest.id].lexical == 0.0


async def test_scores_do_not_depend_on_how_many_candidates_a_leg_gives(shard: Shard) -> None:
    await shard.put(store(), [point(number, words={7: 1.0, number % 5: 0.5}) for number in range(40)])
    few = await shard.search(search(), ShardQuery(mine(), unit(2), {7: 1.0, 3: 2.0}, limit=3))
    many = await shard.search(search(), ShardQuery(mine(), unit(2), {7: 1.0, 3: 2.0}, limit=40))
    all_scores = {hit.id: (hit.dense, hit.lexical) for hit in many.hits}
    for hit in few.hits:
        assert (hit.dense, hit.lexical) == pytest.approx(all_scores[hit.id], rel=1e-5)


async def test_one_leg_alone_answers_too(shard: Shard) -> None:
    await shard.put(store(), [point(1, words={5: 1.0}), point(2, words={})])
    by_words = await shard.search(search(), ShardQuery(mine(), None, {5: 1.0}))
    assert [(hit.id, hit.dense) for hit in by_words.hits] == [(point(1).id, 0.0)]
    by_vector = await shard.search(search(), ShardQuery(mine(), unit(2), {}))
    assert len(by_vector.hits) == 2 and by_vector.idf == {} and all(hit.lexical == 0.0 for hit in by_vector.hits)
    neither = await shard.search(search(), ShardQuery(mine(), None, {}))
    assert neither.hits == () and neither.idf == {}


async def test_idf_counts_only_what_the_asker_may_see(shard: Shard) -> None:
    points = [
        point(number, words={7: 1.0} | ({8: 1.75} if number % 3 == 0 else {}), k=number % 2) for number in range(30)
    ]
    strangers = [point(100 + number, owner=THEIRS, words={8: 2.0, 9: 2.0}) for number in range(30)]
    await shard.put(store(), points + strangers)
    answer = await shard.search(search(), ShardQuery(mine(classes=(1,)), unit(1), {7: 1.0, 8: 1.0, 9: 3.0}))
    seen = [each for each in points if each.payload["k"] == 1]

    def own(token: int) -> float:
        df = sum(token in each.sparse for each in seen)
        return math.log(1 + (len(seen) - df + 0.5) / (df + 0.5))

    assert answer.idf == pytest.approx({token: own(token) for token in (7, 8, 9)}, rel=1e-5)
    for hit in answer.hits:
        kept = next(each for each in seen if each.id == hit.id).sparse
        own_bm25 = sum(count * own(token) * kept.get(token, 0.0) for token, count in ((7, 1.0), (8, 1.0), (9, 3.0)))
        assert hit.lexical == pytest.approx(own_bm25, rel=1e-5)


async def test_an_empty_shard_finds_nothing(shard: Shard) -> None:
    answer = await shard.search(search(), ShardQuery(mine(), unit(1), {7: 1.0}))
    assert answer.site == SITE and answer.hits == () and answer.idf == {7: pytest.approx(math.log(2), rel=1e-5)}


async def test_replaying_a_put_changes_nothing(shard: Shard) -> None:
    block = [point(number) for number in range(5)]
    await shard.put(store(), block)
    before = await shard.search(search(), ShardQuery(mine(), unit(1), {7: 1.0}))
    await shard.put(store(), block)
    assert await shard.count(search(), mine()) == 5
    again = await shard.search(search(), ShardQuery(mine(), unit(1), {7: 1.0}))
    assert [hit.id for hit in again.hits] == [hit.id for hit in before.hits] and again.idf == before.idf


async def test_a_put_larger_than_a_block_arrives_whole(shard: Shard) -> None:
    await shard.put(store(), [point(number) for number in range(600)])
    ids = await shard.ids(search(), mine())
    assert len(ids) == len(set(ids)) == 600
    assert len(await shard.retrieve(search(), ids)) == 600


async def test_delete_says_how_many_there_were(shard: Shard) -> None:
    await shard.put(store(), [point(1), point(2), point(3)])
    assert await shard.delete(erase(), [point(1).id, point(2).id, str(uuid4())]) == 2
    assert await shard.delete(erase(), [point(1).id]) == 0
    assert await shard.ids(search(), mine()) == [point(3).id]


async def test_a_purge_keeps_what_lives(shard: Shard) -> None:
    points = [point(number, a=["g1"]) for number in range(700)]
    await shard.put(store(), points)
    await shard.delete(erase(), [each.id for each in points[:10]])
    facts = await shard.purge(erase())
    assert facts["points"] == 690 and facts["method"] in {"rebuild", "copy"}
    (back,) = await shard.retrieve(search(), [points[650].id], vectors=True)
    assert back.vector.tobytes() == points[650].vector.tobytes()
    assert (back.sparse, back.payload) == (points[650].sparse, points[650].payload)
    assert await shard.count(search(), mine(groups=("g1",))) == 690


async def test_what_is_written_during_a_purge_stays_written(shard: Shard) -> None:
    await shard.put(store(), [point(number) for number in range(700)])
    purge = asyncio.create_task(shard.purge(erase()))
    await asyncio.sleep(0.01)
    await shard.put(store(), [point(number) for number in (800, 801)])
    await shard.delete(erase(), [point(0).id, point(699).id])
    await purge
    ids = set(await shard.ids(search(), mine()))
    assert ids == {point(number).id for number in [*range(1, 699), 800, 801]}


async def test_several_calls_may_be_under_way_at_once(shard: Shard) -> None:
    await shard.put(store(), [point(number) for number in range(20)])
    counts, answers = await asyncio.gather(
        asyncio.gather(*(shard.count(search(), mine(documents=(f"d{number}",))) for number in range(20))),
        asyncio.gather(*(found(shard, mine(documents=(f"d{number}",))) for number in range(20))),
    )
    assert counts == [1] * 20 and answers == [names([number]) for number in range(20)]


CALLS: dict[str, tuple[Action, Any]] = {
    "put": (Action.STORE, lambda shard, route: shard.put(route, [point(1)])),
    "search": (Action.SEARCH, lambda shard, route: shard.search(route, ShardQuery(mine(), unit(1), {7: 1.0}))),
    "retrieve": (Action.SEARCH, lambda shard, route: shard.retrieve(route, [point(1).id])),
    "count": (Action.SEARCH, lambda shard, route: shard.count(route, mine())),
    "ids": (Action.SEARCH, lambda shard, route: shard.ids(route, mine())),
    "delete": (Action.ERASE, lambda shard, route: shard.delete(route, [point(1).id])),
    "purge": (Action.ERASE, lambda shard, route: shard.purge(route)),
}


async def test_no_method_works_with_a_wrong_route(shard: Shard) -> None:
    for action, call in CALLS.values():
        wrong = next(each for each in Action if each is not action)
        for route in (
            route_for(wrong, SITE),
            route_for(action, "us-ashburn"),
            route_for(action, SITE, seconds=-1),
        ):
            with recording() as touches, pytest.raises(RouteError):
                await call(shard, route)
            assert touches == []
    assert await shard.count(search(), mine()) == 0


async def test_every_pass_is_recorded(shard: Shard) -> None:
    for name, (action, call) in CALLS.items():
        with recording() as touches:
            await call(shard, route_for(action, SITE, tags=frozenset({"ab"})))
        (touch,) = touches
        assert (touch.action, touch.site, touch.kind, touch.tags) == (action, SITE, "shard", frozenset({"ab"})), name


async def test_a_shard_says_what_it_is(shard: Shard) -> None:
    assert (await shard.probe())["kind"] in {"embedded", "server"}


# --- the embedded body ----------------------------------------------------------------------------------------------


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def test_edge_purge_leaves_no_byte_of_what_was_deleted(edge: EdgeShard, tmp_path: Path) -> None:
    # Payloads lie under LZ4, which leaves random text such as an Envelope as it is.
    deleted, overwritten, kept = (base64.b64encode(os.urandom(300)).decode() for _ in range(3))
    gone = point(1, s=deleted)
    await edge.put(store(), [gone, point(2, s=overwritten), *(point(number, s=kept) for number in range(3, 300))])
    await edge.put(store(), [point(2)])
    await edge.delete(erase(), [gone.id])
    marks = {
        "payload": deleted.encode()[100:124],
        "overwritten payload": overwritten.encode()[100:124],
        "vector": gone.vector.tobytes()[8:20],
    }
    before = bytes_on_disk(tmp_path)
    assert all(mark in before for mark in marks.values()), "a delete alone must leave them, or this test shows nothing"
    await edge.purge(erase())
    left = bytes_on_disk(tmp_path)
    assert kept.encode()[100:124] in left
    swapped = gone.vector.astype(">f4").tobytes()[8:20]
    assert [name for name, mark in marks.items() if mark in left] == [] and swapped not in left


async def test_edge_loses_no_acknowledged_point_to_a_kill(edge: EdgeShard) -> None:
    for number in range(0, 60, 20):
        await edge.put(store(), [point(each) for each in range(number, number + 20)])
        await edge.delete(erase(), [point(number).id])
    os.kill((await edge.probe())["pid"], signal.SIGKILL)
    assert await edge.count(search(), mine()) == 57
    back = await edge.retrieve(search(), await edge.ids(search(), mine()), vectors=True)
    expected = {point(number).id: point(number) for number in range(60) if number % 20}
    for each in back:
        put = expected.pop(each.id)
        assert each.vector.tobytes() == put.vector.tobytes() and (each.sparse, each.payload) == (
            put.sparse,
            put.payload,
        )
    assert expected == {}


async def test_edge_does_not_know_what_became_of_a_put_that_was_cut_off_and_a_replay_mends_it(edge: EdgeShard) -> None:
    block = [point(number) for number in range(256)]
    put = asyncio.create_task(edge.put(store(), block))
    pid = (await edge.probe())["pid"] if put.done() else edge._child._child.pid  # type: ignore[union-attr]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(SiteError) as caught:
        await put
    assert "unknown" in caught.value.hint
    await edge.put(store(), block)
    assert await edge.count(search(), mine()) == 256


async def test_edge_asks_a_question_again_that_a_death_cut_off(edge: EdgeShard) -> None:
    await edge.put(store(), [point(1)])
    pid = (await edge.probe())["pid"]
    os.kill(pid, signal.SIGSTOP)
    asked = asyncio.create_task(edge.count(search(), mine()))
    await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert await asked == 1


async def test_edge_is_closed_with_its_cause_after_the_third_death(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("residency.outlets.shards.edge_child.PAUSES", (0.0, 0.0))
    told: list[tuple[str, str]] = []
    edge = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH, on_closed=lambda *what: told.append(what))
    await edge.start()
    try:
        for _ in range(3):
            os.kill((await edge.probe())["pid"], signal.SIGKILL)
            await asyncio.sleep(0.02)  # let the death be noticed; the next probe waits for the new child
        with pytest.raises(SiteError, match="died 3 times"):
            await edge.count(search(), mine())
        assert [site for site, _ in told] == [SITE] and "signal 9" in edge.cause
    finally:
        await edge.aclose()


async def test_edge_is_refused_to_a_second_opener_who_learns_who_holds_it(edge: EdgeShard, tmp_path: Path) -> None:
    second = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH)
    with pytest.raises(SiteError, match=f'"pid":{os.getpid()}'.replace(":", ": ")):
        await second.start()
    await second.aclose()
    assert await edge.count(search(), mine()) == 0


async def test_edge_refuses_a_put_when_the_volume_is_nearly_full(tmp_path: Path) -> None:
    edge = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH, free_share=1.0)
    await edge.start()
    try:
        with pytest.raises(StorageFullError):
            await edge.put(store(), [point(1)])
        assert await edge.count(search(), mine()) == 0
    finally:
        await edge.aclose()


async def test_edge_opens_again_what_it_held_and_sweeps_what_a_purge_left(tmp_path: Path) -> None:
    folder = tmp_path / "shard"
    first = EdgeShard(SITE, folder, dimension=WIDTH)
    await first.start()
    await first.put(store(), [point(1)])
    await first.aclose()
    (folder / "g0002").mkdir()
    (folder / "g0002" / "torn").write_bytes(b"left by a purge that was cut off")
    second = EdgeShard(SITE, folder, dimension=WIDTH)
    await second.start()
    try:
        assert await second.count(search(), mine()) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["CURRENT", "g0001", "shard.lock"]
    finally:
        await second.aclose()


async def test_edge_refuses_a_folder_made_for_vectors_of_another_width(edge: EdgeShard, tmp_path: Path) -> None:
    await edge.put(store(), [point(1)])
    await edge.aclose()
    other = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH + 1)
    with pytest.raises(SiteError):
        await other.start()
    await other.aclose()


async def test_edge_refuses_to_guess_when_current_is_gone(edge: EdgeShard, tmp_path: Path) -> None:
    await edge.put(store(), [point(1)])
    await edge.aclose()
    (tmp_path / "shard" / "CURRENT").unlink()
    again = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH)
    with pytest.raises(SiteError, match="CURRENT"):
        await again.start()
    await again.aclose()


async def test_edge_refuses_a_vector_of_another_width(edge: EdgeShard) -> None:
    wrong = Point(str(uuid4()), np.zeros(WIDTH + 1, dtype=np.float32), {}, {"t": OURS})
    with pytest.raises(SiteError, match="wide"):
        await edge.put(store(), [wrong])


async def test_edge_child_holds_neither_the_service_nor_a_secret_of_the_environment(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("DOMICILE_CANARY", "secret")
    edge = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH)
    await edge.start()
    try:
        process = Path("/proc") / str((await edge.probe())["pid"])
        assert b"secret" not in (process / "environ").read_bytes()
        maps = (process / "maps").read_text()
        assert "qdrant_edge" in maps and "torch" not in maps and "numpy" not in maps
        assert "Max core file size        0                    0" in (process / "limits").read_text()
    finally:
        await edge.aclose()


ORPHAN = """
import asyncio, sys
from pathlib import Path
from residency.outlets.shards.edge import EdgeShard

async def main():
    shard = EdgeShard("de-frankfurt", Path(sys.argv[1]), dimension=16)
    await shard.start()
    print((await shard.probe())["pid"], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "(zombie)" not in status.read_text()


async def test_edge_child_dies_with_its_parent_and_leaves_the_shard_to_the_next(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, str(tmp_path / "shard"), stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": "."}
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    next_one = EdgeShard(SITE, tmp_path / "shard", dimension=WIDTH)
    await next_one.start()
    assert (await next_one.probe())["pid"] != child and not is_running(child)
    await next_one.aclose()


# --- the remote body ------------------------------------------------------------------------------------------------


@pytest.mark.enable_socket
async def test_remote_ties_each_pass_to_a_line_in_the_servers_log(remote: RemoteShard, double: QdrantDouble) -> None:
    double.log.clear()
    with recording() as touches:
        await remote.search(search(), ShardQuery(mine(), unit(1), {7: 1.0}))
    assert touches[0].request and {seen.headers["x-request-id"] for seen in double.log} == {touches[0].request}


@pytest.mark.enable_socket
async def test_remote_takes_only_completed_for_written(remote: RemoteShard, double: QdrantDouble) -> None:
    double.write_status = "acknowledged"
    with pytest.raises(SiteError, match="acknowledged"):
        await remote.put(store(), [point(1)])


@pytest.mark.enable_socket
async def test_remote_tries_again_what_may_be_momentary(remote: RemoteShard, double: QdrantDouble) -> None:
    double.fail("/points$", 503)
    double.hang_up("/points$")
    await remote.put(store(), [point(1)])
    double.fail("/points/count", 429, Retry_After="0")
    assert await remote.count(search(), mine()) == 1


@pytest.mark.enable_socket
async def test_remote_says_that_a_server_is_busy_rather_than_wait_long(
    remote: RemoteShard, double: QdrantDouble
) -> None:
    double.fail("/points/count", 429, Retry_After="60")
    with pytest.raises(SiteError, match="busy"):
        await remote.count(search(), mine())
    assert len(double.calls("/points/count")) == 1


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [400, 403, 500])
async def test_remote_does_not_quote_what_the_server_says(
    remote: RemoteShard, double: QdrantDouble, status: int
) -> None:
    double.fail("/points/count", status, text="canary")
    with pytest.raises(SiteError) as caught:
        await remote.count(search(), mine())
    assert "canary" not in str(caught.value) + caught.value.hint


@pytest.mark.enable_socket
async def test_remote_tells_a_full_server_apart(remote: RemoteShard, double: QdrantDouble) -> None:
    double.fail("/points$", 500, text="Service internal error: No space left on device")
    with pytest.raises(StorageFullError):
        await remote.put(store(), [point(1)])


@pytest.mark.enable_socket
async def test_remote_shows_its_shard_key_in_every_call(double: QdrantDouble) -> None:
    shard = remote_shard(double, shard_key="de")
    await shard.start()
    try:
        await shard.put(store(), [point(1)])
        double.collections["northwind-g0001"].keys.append("fr")
        await found(shard, mine())
        await shard.ids(search(), mine())
        await shard.count(search(), mine())
        await shard.delete(erase(), [point(1).id])
        bodies = [seen.body for seen in double.calls("/points")]
        asked = [each for body in bodies for each in body.get("searches", [body])]
        assert asked and all(each["shard_key"] == "de" for each in asked)
    finally:
        await shard.aclose()


@pytest.mark.enable_socket
async def test_remote_purge_drops_the_old_collection_with_its_snapshots(
    remote: RemoteShard, double: QdrantDouble
) -> None:
    await remote.put(store(), [point(1)])
    double.collections["northwind-g0001"].snapshots.append("nightly")
    facts = await remote.purge(erase())
    assert facts["snapshots_removed"] == 1 and facts["generation"] == "northwind-g0002"
    assert list(double.collections) == ["northwind-g0002"] and double.aliases == {"northwind": "northwind-g0002"}


@pytest.mark.enable_socket
async def test_remote_makes_its_collection_once_and_refuses_one_of_another_width(
    remote: RemoteShard, double: QdrantDouble
) -> None:
    made = len(double.calls("/collections/northwind-g0001$"))
    again, other = remote_shard(double), remote_shard(double, dimension=WIDTH * 2)
    await again.start()
    assert len(double.calls("/collections/northwind-g0001$")) == made
    with pytest.raises(SiteError, match="width"):
        await other.start()
    await again.aclose()
    await other.aclose()


@pytest.mark.enable_socket
async def test_remote_settings_are_those_of_the_erasure(remote: RemoteShard, double: QdrantDouble) -> None:
    made = double.collections["northwind-g0001"]
    body = made.settings.model_dump(exclude_none=True, mode="json")
    assert body["hnsw_config"] == {"m": 0, "payload_m": 16}
    assert body["optimizers_config"] == {"deleted_threshold": 0.0, "vacuum_min_vector_number": 100}
    assert body["wal_config"] == {"wal_capacity_mb": 1, "wal_retain_closed": 1}
    assert set(made.indexes) == {"t", "k", "c", "d", "a"} and made.indexes["t"].is_tenant


@pytest.mark.enable_socket
async def test_remote_probe_refuses_a_server_that_answers_strangers(double: QdrantDouble) -> None:
    double.api_key = ""
    shard = remote_shard(double)
    with pytest.raises(SiteError, match="without a key"):
        await shard.probe()
    await shard.aclose()


@pytest.mark.enable_socket
async def test_remote_probe_refuses_an_old_server_and_names_the_peers_of_a_cluster(double: QdrantDouble) -> None:
    double.peers = {"1": "https://fra-1.internal:6335/"}
    shard = remote_shard(double)
    told = await shard.probe()
    assert (
        told["peers"] == ["https://fra-1.internal:6335/"] and told["version"] == "1.19.1" and told["telemetry"] is None
    )
    double.version = "1.18.3"
    with pytest.raises(SiteError, match="too old"):
        await shard.probe()
    await shard.aclose()


@pytest.mark.enable_socket
async def test_remote_probe_refuses_a_cluster_that_reaches_beyond_the_fleet(double: QdrantDouble) -> None:
    double.peers = {"1": "https://fra-1.internal:6335/", "2": "https://iad-1.internal:6335/"}
    shard = remote_shard(double)
    with pytest.raises(SiteError, match="2 peers that the fleet file does not name"):
        await shard.probe()
    await shard.aclose()
    named = remote_shard(double, peers=["https://fra-1.internal:6335"])
    with pytest.raises(SiteError, match="iad-1") as refused:
        await named.probe()
    assert "peers" in refused.value.hint
    await named.aclose()
    double.peers["2"] = "https://fra-2.internal:6335/"
    double.shards = {1: "2"}
    both = remote_shard(double, peers=["https://fra-1.internal:6335", "https://FRA-2.internal:6335/"])
    await both.start()
    placed = (await both.probe())["placement"]
    assert [(each["shard"], each["uri"]) for each in placed] == [
        (0, "https://fra-1.internal:6335/"),
        (1, "https://fra-2.internal:6335/"),
    ]
    double.shards = {1: "9"}
    with pytest.raises(SiteError, match="lies at peer 9"):
        await both.probe()
    await both.aclose()


@pytest.mark.enable_socket
async def test_remote_probe_says_whether_snapshots_can_be_made_without_making_one(double: QdrantDouble) -> None:
    shard, strict = remote_shard(double), remote_shard(double, snapshots="forbidden")
    await shard.start()
    assert {name: (await strict.probe())[name] for name in ("snapshots", "may_snapshot")} == {
        "snapshots": 0,
        "may_snapshot": False,
    }
    double.may_snapshot = True
    assert (await shard.probe())["may_snapshot"] is True
    with pytest.raises(SiteError, match="lets our key make snapshots"):
        await strict.probe()
    assert all(not each.snapshots for each in double.collections.values())
    double.may_snapshot = False
    next(iter(double.collections.values())).snapshots.append("old.snapshot")
    assert (await shard.probe())["snapshots"] == 1
    with pytest.raises(SiteError, match="1 snapshots of our collection"):
        await strict.probe()
    await shard.aclose()
    await strict.aclose()


@pytest.mark.enable_socket
async def test_remote_makes_what_is_missing_with_its_first_good_probe_unless_it_only_looks(
    double: QdrantDouble,
) -> None:
    beside, ours = remote_shard(double, only_looks=True), remote_shard(double)
    await beside.probe()
    assert not double.collections
    double.version = "1.17.0"
    with pytest.raises(SiteError, match="too old"):
        await ours.probe()
    assert not double.collections
    double.version = "1.19.1"
    await ours.probe()
    await ours.put(store(), [point(1)])
    assert list(double.aliases) == ["northwind"]
    await beside.aclose()
    await ours.aclose()


@pytest.mark.enable_socket
async def test_remote_says_so_when_nobody_answers(double: QdrantDouble) -> None:
    double.hang_up(".*", times=10)
    shard = remote_shard(double)
    with pytest.raises(SiteError, match="out of reach"):
        await shard.start()
    await shard.aclose()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext, str]:
    """Make a server's context, a context that trusts it alone, and the SHA-256 of its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "qdrant.invalid")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(Encoding.PEM)
    (folder / "server.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode()), made.fingerprint(hashes.SHA256()).hex()


@pytest.mark.enable_socket
async def test_remote_records_which_certificate_answered_and_refuses_one_of_another_root(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # trust_env is off: nobody asks a proxy
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server, trusting, digest = certificate(tmp_path)
    with serving(QdrantDouble(), tls=server) as double:
        shard = remote_shard(double, ssl_context=trusting)
        await shard.start()
        with recording() as touches:
            await shard.put(store(), [point(1)])
        assert touches[0].peer == digest and (await shard.probe())["tls"]
        await shard.aclose()
        stranger = remote_shard(double, ssl_context=ssl.create_default_context())
        with pytest.raises(SiteError, match="out of reach"):
            await stranger.start()
        await stranger.aclose()


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("http://qdrant.example:6333", {}),
        ("https://qdrant.example:6333", {}),
        ("ftp://127.0.0.1", {}),
        ("http://user:word@127.0.0.1:6333", {}),
        ("http://127.0.0.1:6333", {"api_key": ""}),
    ],
)
def test_remote_refuses_an_address_that_would_give_something_away(url: str, settings: dict[str, Any]) -> None:
    given = {"api_key": "key", "ssl_context": None, "collection": "c", "dimension": WIDTH} | settings
    with pytest.raises(SiteError):
        RemoteShard(SITE, url, **given)
