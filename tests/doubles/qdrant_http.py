"""A double of a Qdrant server's REST face, true to the protocol as far as `outlets/shards/remote.py` uses it.

Bodies are validated with the models of qdrant-client, which are made from the server's own OpenAPI and forbid unknown
fields; scores are worked out for real (dot product; sparse with IDF over the corpus filter), and errors have the
server's form. It listens on a loopback port in a thread, so tests using it carry `enable_socket`.
Not imitated: segments, replicas, JWT, durability.
"""

import json
import math
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import numpy as np
from qdrant_client import models

OPEN_PATHS = ("/", "/healthz", "/livez", "/readyz")
"""What a server answers without a key (qdrant/qdrant: src/actix/mod.rs)."""


class FailError(Exception):
    """An answer in the server's form of an error."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


@dataclass
class Seen:
    """One call as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Held:
    """A point: vectors by name, payload, shard key."""

    dense: np.ndarray[Any, Any]
    words: dict[int, float]
    payload: dict[str, Any]
    key: Any


@dataclass
class Collection:
    settings: models.CreateCollection
    points: dict[str, Held] = field(default_factory=dict)
    indexes: dict[str, Any] = field(default_factory=dict)
    keys: list[Any] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)


class QdrantDouble:
    """The server's state, its log of calls, and the failures that a test asks of it."""

    def __init__(self, *, api_key: str = "key", version: str = "1.19.1") -> None:
        self.api_key = api_key
        self.version = version
        self.peers: dict[str, str] = {}
        self.shards: dict[int, str] = {}
        """Shards that lie at another peer than this one, which is peer 1: by number, the peer."""
        self.may_snapshot = False
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        self.log: list[Seen] = []
        self.write_status = "completed"
        self.url = ""
        self._failures: list[tuple[re.Pattern[str], FailError | None]] = []
        self._operations = 0
        self._lock = RLock()

    def fail(self, path: str, status: int, *, times: int = 1, text: str = "injected", **headers: str) -> None:
        """Answer the next calls whose path matches with this status; header names with `_` for `-`."""
        fail = FailError(status, text, **{name.replace("_", "-"): value for name, value in headers.items()})
        self._failures += [(re.compile(path), fail)] * times

    def hang_up(self, path: str, *, times: int = 1) -> None:
        """Close the connection on the next matching calls, without an answer."""
        self._failures += [(re.compile(path), None)] * times

    def forgive(self) -> None:
        """Fail no more."""
        self._failures.clear()

    def calls(self, path: str) -> list[Seen]:
        """Give the logged calls whose path matches."""
        return [seen for seen in self.log if re.search(path, seen.path)]

    # --- answering ---

    def answer(self, seen: Seen) -> Any:
        """Give the `result` of a call. Raises `FailError`, and `ConnectionAbortedError` to hang up."""
        with self._lock:
            self.log.append(seen)
            for number, (path, fail) in enumerate(self._failures):
                if path.search(seen.path):
                    del self._failures[number]
                    raise fail or ConnectionAbortedError
            if self.api_key and seen.path not in OPEN_PATHS and seen.headers.get("api-key") != self.api_key:
                raise FailError(401, "Must provide an API key or an Authorization bearer token")
            for method, pattern, work in ROUTES:
                match = re.fullmatch(pattern, seen.path)
                if method == seen.method and match:
                    return work(self, seen, *match.groups())
            raise FailError(404, "no such path")

    def _of(self, name: str) -> Collection:
        found = self.collections.get(self.aliases.get(name, name))
        if found is None:
            raise FailError(404, f"Not found: Collection `{name}` doesn't exist!")
        return found

    def root(self, seen: Seen) -> Any:
        return Bare({"title": "qdrant - vector search engine", "version": self.version})

    def telemetry(self, seen: Seen) -> Any:
        app = {"name": "qdrant", "version": self.version, "jwt_rbac": True, "startup": "2026-01-01T00:00:00Z"}
        return {"id": "0", "app": app, "collections": {"number_of_collections": len(self.collections)}}

    def cluster(self, seen: Seen) -> Any:
        if not self.peers:
            return {"status": "disabled"}
        raft = {"term": 1, "commit": 1, "pending_operations": 0, "leader": 1, "role": "Leader", "is_voter": True}
        return {
            "status": "enabled",
            "peer_id": 1,
            "peers": {peer: {"uri": uri} for peer, uri in self.peers.items()},
            "raft_info": raft,
            "consensus_thread_status": {"consensus_thread_status": "working", "last_update": "2026-01-01T00:00:00Z"},
            "message_send_failures": {},
        }

    def list_collections(self, seen: Seen) -> Any:
        return {"collections": [{"name": name} for name in self.collections]}

    def exists(self, seen: Seen, name: str) -> Any:
        return {"exists": self.aliases.get(name, name) in self.collections}

    def create(self, seen: Seen, name: str) -> Any:
        if name in self.collections:
            raise FailError(409, f"Wrong input: Collection `{name}` already exists!")
        self.collections[name] = Collection(models.CreateCollection.model_validate(seen.body))
        return True

    def info(self, seen: Seen, name: str) -> Any:
        found = self._of(name)
        given = found.settings.model_dump(mode="json", exclude_none=True)
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": len(found.points),
            "segments_count": 1,
            "config": {
                "params": {"vectors": given["vectors"], "sparse_vectors": given.get("sparse_vectors")},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000} | given["hnsw_config"],
                "optimizer_config": {"default_segment_number": 0, "flush_interval_sec": 5} | given["optimizers_config"],
            },
            "payload_schema": {},
        }

    def drop(self, seen: Seen, name: str) -> Any:
        return self.collections.pop(name, None) is not None

    def index(self, seen: Seen, name: str) -> Any:
        asked = models.CreateFieldIndex.model_validate(seen.body)
        self._of(name).indexes[asked.field_name] = asked.field_schema
        return self._written(seen)

    def shard(self, seen: Seen, name: str) -> Any:
        self._of(name).keys.append(models.CreateShardingKey.model_validate(seen.body).shard_key)
        return True

    def list_aliases(self, seen: Seen) -> Any:
        return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]}

    def change_aliases(self, seen: Seen) -> Any:
        for action in models.ChangeAliasesOperation.model_validate(seen.body).actions:
            if isinstance(action, models.DeleteAliasOperation):
                self.aliases.pop(action.delete_alias.alias_name, None)
            elif isinstance(action, models.CreateAliasOperation):
                self._of(action.create_alias.collection_name)
                self.aliases[action.create_alias.alias_name] = action.create_alias.collection_name
        return True

    def list_snapshots(self, seen: Seen, name: str) -> Any:
        return [{"name": each, "size": 1} for each in self._of(name).snapshots]

    def make_snapshot(self, seen: Seen, name: str) -> Any:
        if not self.may_snapshot:
            raise FailError(403, "Forbidden: Global manage access is required")
        self._of(name).snapshots.append(f"{name}-1.snapshot")
        return {"name": f"{name}-1.snapshot", "size": 1}

    def placement(self, seen: Seen, name: str) -> Any:
        local = {"shard_id": 0, "points_count": len(self._of(name).points), "state": "Active"}
        remote = [{"shard_id": at, "peer_id": int(peer), "state": "Active"} for at, peer in self.shards.items()]
        shards = {"local_shards": [local], "remote_shards": remote, "shard_transfers": []}
        return {"peer_id": 1, "shard_count": 1 + len(remote), **shards}

    def drop_snapshot(self, seen: Seen, name: str, snapshot: str) -> Any:
        self._of(name).snapshots.remove(snapshot)
        return True

    # --- points ---

    def _written(self, seen: Seen) -> Any:
        self._operations += 1
        waited = seen.query.get("wait") == "true"
        return {"operation_id": self._operations, "status": self.write_status if waited else "acknowledged"}

    def upsert(self, seen: Seen, name: str) -> Any:
        found, asked = self._of(name), models.PointsList.model_validate(seen.body)
        if found.settings.sharding_method == models.ShardingMethod.CUSTOM and asked.shard_key not in found.keys:
            raise FailError(400, "Bad request: Shard key not specified")
        for point in asked.points:
            vector: Any = point.vector
            words = vector.get("words")
            found.points[_id(point.id)] = Held(
                np.asarray(vector["dense"], dtype=np.float32),
                dict(zip(words.indices, words.values, strict=True)) if words else {},
                dict(point.payload or {}),
                asked.shard_key,
            )
        return self._written(seen)

    def delete(self, seen: Seen, name: str) -> Any:
        asked = models.PointIdsList.model_validate(seen.body)
        for id_, _ in self._kept(self._of(name), None, asked.shard_key):
            if id_ in {_id(each) for each in asked.points}:
                del self._of(name).points[id_]
        return self._written(seen)

    def retrieve(self, seen: Seen, name: str) -> Any:
        asked = models.PointRequest.model_validate(seen.body)
        wanted = {_id(each) for each in asked.ids}
        kept = self._kept(self._of(name), None, asked.shard_key)
        return [_record(id_, held, asked.with_payload, asked.with_vector) for id_, held in kept if id_ in wanted]

    def count(self, seen: Seen, name: str) -> Any:
        asked = models.CountRequest.model_validate(seen.body)
        return {"count": len(self._kept(self._of(name), asked.filter, asked.shard_key))}

    def scroll(self, seen: Seen, name: str) -> Any:
        asked = models.ScrollRequest.model_validate(seen.body)
        kept = self._kept(self._of(name), asked.filter, asked.shard_key)
        rest = [pair for pair in kept if asked.offset is None or pair[0] >= _id(asked.offset)]
        page, more = rest[: asked.limit], rest[asked.limit or 10 :]
        return {
            "points": [_record(id_, held, asked.with_payload, asked.with_vector) for id_, held in page],
            "next_page_offset": more[0][0] if more else None,
        }

    def query_batch(self, seen: Seen, name: str) -> Any:
        asked = models.QueryRequestBatch.model_validate(seen.body)
        return [{"points": self._query(self._of(name), each)} for each in asked.searches]

    def _query(self, found: Collection, asked: models.QueryRequest) -> list[dict[str, Any]]:
        kept = self._kept(found, asked.filter, asked.shard_key)
        query: Any = asked.query.nearest if isinstance(asked.query, models.NearestQuery) else asked.query
        if asked.using == "dense":
            near = np.asarray(query, dtype=np.float32)
            scored = [(float(held.dense @ near), id_, held) for id_, held in kept]
        else:
            scored = self._by_words(found, asked, query, kept)
        scored.sort(key=lambda row: (-row[0], row[1]))
        return [
            {"version": 0, "score": score, **_record(id_, held, asked.with_payload, asked.with_vector)}
            for score, id_, held in scored[: asked.limit or 10]
        ]

    def _by_words(
        self, found: Collection, asked: models.QueryRequest, query: models.SparseVector, kept: list[tuple[str, Held]]
    ) -> list[tuple[float, str, Held]]:
        idf = asked.params.idf if asked.params else None
        within = idf.corpus if isinstance(idf, models.IdfCorpusParams) else None
        corpus = self._kept(found, within, asked.shard_key)
        mass = {}
        for token in query.indices:
            df = sum(token in held.words for _, held in corpus)
            mass[token] = math.log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
        counts = dict(zip(query.indices, query.values, strict=True))
        return [
            (sum(counts[t] * mass[t] * held.words[t] for t in counts.keys() & held.words.keys()), id_, held)
            for id_, held in kept
            if counts.keys() & held.words.keys()
        ]

    def _kept(self, found: Collection, where: models.Filter | None, key: Any) -> list[tuple[str, Held]]:
        strict = found.settings.strict_mode_config
        if where is not None and strict is not None and strict.unindexed_filtering_retrieve is False:
            for name in _fields(where):
                if name not in found.indexes:
                    raise FailError(400, f'Bad request: Index required but not found for "{name}"')
        return sorted(
            (id_, held)
            for id_, held in found.points.items()
            if (key is None or held.key == key) and _matches(where, id_, held.payload)
        )


class Bare:
    """An answer without the usual frame of result, status and time."""

    def __init__(self, body: Any) -> None:
        self.body = body


ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/", QdrantDouble.root),
    ("GET", "/telemetry", QdrantDouble.telemetry),
    ("GET", "/cluster", QdrantDouble.cluster),
    ("GET", "/collections", QdrantDouble.list_collections),
    ("GET", "/aliases", QdrantDouble.list_aliases),
    ("POST", "/collections/aliases", QdrantDouble.change_aliases),
    ("GET", "/collections/([^/]+)/exists", QdrantDouble.exists),
    ("PUT", "/collections/([^/]+)", QdrantDouble.create),
    ("GET", "/collections/([^/]+)", QdrantDouble.info),
    ("DELETE", "/collections/([^/]+)", QdrantDouble.drop),
    ("PUT", "/collections/([^/]+)/index", QdrantDouble.index),
    ("PUT", "/collections/([^/]+)/shards", QdrantDouble.shard),
    ("GET", "/collections/([^/]+)/snapshots", QdrantDouble.list_snapshots),
    ("POST", "/collections/([^/]+)/snapshots", QdrantDouble.make_snapshot),
    ("GET", "/collections/([^/]+)/cluster", QdrantDouble.placement),
    ("DELETE", "/collections/([^/]+)/snapshots/([^/]+)", QdrantDouble.drop_snapshot),
    ("PUT", "/collections/([^/]+)/points", QdrantDouble.upsert),
    ("POST", "/collections/([^/]+)/points", QdrantDouble.retrieve),
    ("POST", "/collections/([^/]+)/points/delete", QdrantDouble.delete),
    ("POST", "/collections/([^/]+)/points/count", QdrantDouble.count),
    ("POST", "/collections/([^/]+)/points/scroll", QdrantDouble.scroll),
    ("POST", "/collections/([^/]+)/points/query/batch", QdrantDouble.query_batch),
]


def _id(value: Any) -> str:
    try:
        return str(UUID(str(value)))
    except ValueError:
        raise FailError(400, "Format error in JSON body: value is not a valid point ID") from None


def _record(id_: str, held: Held, payload: Any, vector: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"id": id_}
    if payload:
        record["payload"] = held.payload
    if vector:
        names = {"dense", "words"} if vector is True else set(vector)
        words = {"indices": list(held.words), "values": list(held.words.values())}
        both = {"dense": held.dense.tolist()} | ({"words": words} if held.words else {})
        record["vector"] = {name: value for name, value in both.items() if name in names}
    return record


def _fields(where: models.Filter) -> Iterator[str]:
    for condition in [*_listed(where.must), *_listed(where.should), *_listed(where.must_not)]:
        match condition:
            case models.Filter():
                yield from _fields(condition)
            case models.FieldCondition(key=key):
                yield key
            case models.IsEmptyCondition(is_empty=each):
                yield each.key


def _listed(conditions: Any) -> list[Any]:
    return conditions if isinstance(conditions, list) else [] if conditions is None else [conditions]


def _matches(where: models.Filter | None, id_: str, payload: dict[str, Any]) -> bool:
    if where is None:
        return True
    should = _listed(where.should)
    return (
        all(_holds(each, id_, payload) for each in _listed(where.must))
        and (not should or any(_holds(each, id_, payload) for each in should))
        and not any(_holds(each, id_, payload) for each in _listed(where.must_not))
    )


def _holds(condition: Any, id_: str, payload: dict[str, Any]) -> bool:
    match condition:
        case models.Filter():
            return _matches(condition, id_, payload)
        case models.HasIdCondition(has_id=ids):
            return id_ in {_id(each) for each in ids}
        case models.IsEmptyCondition(is_empty=each):
            return payload.get(each.key) in (None, [])
        case models.FieldCondition(key=key, match=models.MatchAny(any=wanted)):
            value = payload.get(key)
            values = value if isinstance(value, list) else [value]
            return any(each in wanted for each in values)
    raise FailError(400, f"the double does not know {type(condition).__name__}")


class _Face(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: ClassVar[QdrantDouble]

    def _serve(self) -> None:
        began = time.perf_counter()
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, extra = 200, dict[str, str]()
        answer: Any
        try:
            result = self.double.answer(Seen(self.command, parts.path, query, headers, body))
            took = time.perf_counter() - began
            answer = result.body if isinstance(result, Bare) else {"result": result, "status": "ok", "time": took}
        except ConnectionAbortedError:
            self.close_connection = True
            return
        except FailError as fail:
            status, extra = fail.status, fail.headers
            answer = {"status": {"error": fail.text}, "time": time.perf_counter() - began}
        except ValueError as error:
            status, answer = 400, {"status": {"error": f"Format error in JSON body: {error}"}, "time": 0.0}
        data = json.dumps(answer).encode()
        lines = {"Content-Type": "application/json", "Content-Length": str(len(data)), **extra}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self.wfile.write(head.encode() + data)  # in one write: two would wait for the other side's delayed ACK

    do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Stay quiet."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # five, the default, overflow when many connect at once on a busy machine
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is none of our business; a mistake of the double itself is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(
    double: QdrantDouble, *, tls: ssl.SSLContext | None = None, place: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[QdrantDouble]:
    """Listen on a loopback port (or at `place`), by TLS when given a server's context, and set `double.url`."""
    server = _Server(place, type("Face", (_Face,), {"double": double}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    double.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
