"""remote_terms: how a shard's words become those of a Qdrant server, and which servers are refused; no IO."""

import ipaddress
import math
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from residency.errors import SiteError, StorageFullError
from residency.ports import Point, PointFilter, ShardQuery

DENSE: Final = "dense"
WORDS: Final = "words"
OLDEST: Final = (1, 19)
"""The notes of 1.17 and 1.18 list lost data and a deadlock (qdrant/qdrant#7850, #8131)."""

_keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
INDEXES: Final[dict[str, Any]] = {
    "t": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "c": _keyword,
    "d": _keyword,
    "a": _keyword,
    "k": models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False),
}


def settings(dimension: int) -> dict[str, Any]:
    """Give a collection's settings; those of vacuum and WAL are the smallest that the server takes."""
    return {
        "vectors_config": {DENSE: models.VectorParams(size=dimension, distance=models.Distance.DOT)},
        "sparse_vectors_config": {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=16),
        "optimizers_config": models.OptimizersConfigDiff(deleted_threshold=0.0, vacuum_min_vector_number=100),
        "wal_config": models.WalConfigDiff(wal_capacity_mb=1, wal_retain_closed=1),
        "strict_mode_config": models.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False),
    }


def following(name: str) -> str:
    """Name the generation after this one: `northwind-g0001`, `northwind-g0002`."""
    stem, _, number = name.rpartition("-g")
    return f"{stem}-g{int(number) + 1:04d}" if number.isdigit() else f"{name}-g0001"


def moved(alias: str, name: str) -> list[Any]:
    """Give the change that makes `alias` name another collection in one step."""
    return [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias)),
    ]


# --- points and questions -------------------------------------------------------------------------------------------


def stored(point: Point) -> models.PointStruct:
    """Translate a point; one without words has no sparse vector at all, one whose vector is sealed no dense one."""
    vector: dict[str, Any] = {DENSE: np.asarray(point.vector, dtype=np.float32).tolist()} if len(point.vector) else {}
    if point.sparse:
        vector[WORDS] = models.SparseVector(
            indices=list(point.sparse), values=[float(weight) for weight in point.sparse.values()]
        )
    return models.PointStruct(id=point.id, vector=vector, payload=point.payload)


def unpacked(record: models.Record) -> Point:
    """Translate back; without vectors both are empty."""
    vector: Any = record.vector or {}
    words = vector.get(WORDS)
    return Point(
        id=str(record.id),
        vector=np.asarray(vector.get(DENSE, ()), dtype=np.float32),
        sparse=dict(zip(words.indices, words.values, strict=True)) if words else {},
        payload=record.payload or {},
    )


def again(record: models.Record) -> models.PointStruct:
    """Make what was read ready to be written elsewhere."""
    return stored(unpacked(record))


def condition(where: PointFilter) -> models.Filter:
    """Translate a filter; a point without `a` is open to everyone who may see its owner's points."""
    must: list[Any] = [models.FieldCondition(key="t", match=models.MatchAny(any=list(where.owners)))]
    fields: tuple[tuple[str, Any], ...] = (("k", where.classes), ("c", where.collections), ("d", where.documents))
    must += [
        models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        for field, values in fields
        if values is not None
    ]
    if where.groups is not None:
        open_to: list[Any] = [models.IsEmptyCondition(is_empty=models.PayloadField(key="a"))]
        if where.groups:
            open_to.append(models.FieldCondition(key="a", match=models.MatchAny(any=list(where.groups))))
        must.append(models.Filter(should=open_to))
    return models.Filter(must=must)


@dataclass(frozen=True, slots=True)
class Leg:
    """One way of asking: by vector or by words."""

    using: str
    query: Any
    params: models.SearchParams


def words(tokens: dict[int, float], where: models.Filter) -> Leg:
    """Ask by words, their IDF counted over what the filter lets through."""
    return Leg(
        WORDS,
        models.SparseVector(indices=list(tokens), values=[float(number) for number in tokens.values()]),
        models.SearchParams(exact=True, idf=models.IdfCorpusParams(corpus=where)),
    )


def legs(query: ShardQuery, where: models.Filter) -> list[Leg]:
    """Give the legs that the question has, the dense one first."""
    found: list[Leg] = []
    if query.vector is not None:
        near = np.asarray(query.vector, dtype=np.float32).tolist()
        found.append(Leg(DENSE, near, models.SearchParams(exact=True)))
    if query.tokens:
        found.append(words(query.tokens, where))
    return found


def idf(tokens: list[int], answers: list[list[models.ScoredPoint]], points: int) -> dict[int, float]:
    """Work out each token's IDF: score of a question of that token alone ÷ the best hit's stored weight.

    A token that none of the `points` has counts as ln(1 + (n + .5) / .5), the server's formula at df = 0.
    """
    masses: dict[int, float] = {}
    for token, answer in zip(tokens, answers, strict=True):
        if not answer:
            masses[token] = math.log(1 + (points + 0.5) / 0.5)
            continue
        vector: Any = answer[0].vector
        weights = dict(zip(vector[WORDS].indices, vector[WORDS].values, strict=True))
        masses[token] = answer[0].score / weights[token]
    return masses


# --- what is refused ------------------------------------------------------------------------------------------------


def check_url(site: str, url: str, api_key: str, ssl_context: ssl.SSLContext | None) -> bool:
    """Refuse plain HTTP but to loopback, HTTPS without the Zone's root, and a missing key; True means TLS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not api_key:
        raise SiteError(f"the shard at {site} has no API key", site=site, hint="give it a key file")
    if parts.username or parts.password or parts.query:
        raise SiteError(
            f"the address of the shard at {site} holds more than a place", site=site, hint="move secrets out"
        )
    if parts.scheme == "https":
        if ssl_context is None:
            raise SiteError(f"the shard at {site} has no trust root", site=site, hint="name the root of its Zone")
        return True
    if parts.scheme != "http" or not _is_loopback(host):
        raise SiteError(f"the shard at {site} is not reached by TLS", site=site, hint="use an https:// address")
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_collection(site: str, info: models.CollectionInfo, dimension: int) -> None:
    """Refuse a collection that holds other vectors than ours."""
    dense: Any = info.config.params.vectors
    sparse = info.config.params.sparse_vectors or {}
    params = dense.get(DENSE) if isinstance(dense, dict) else None
    fits = (
        params is not None
        and params.size == dimension
        and params.distance == models.Distance.DOT
        and WORDS in sparse
        and sparse[WORDS].modifier == models.Modifier.IDF
    )
    if not fits:
        raise SiteError(
            f"the collection at {site} was not made for vectors of width {dimension}",
            site=site,
            hint="name another collection, or embed with the model it was made for",
        )


def check_server(site: str, *, refuses: bool, told: Any, cluster: Any, secure: bool) -> dict[str, Any]:
    """Refuse a server that answers strangers or is too old; give what else it says of itself."""
    if not refuses:
        raise SiteError(f"the server at {site} answers without a key", site=site, hint="set QDRANT__SERVICE__API_KEY")
    version = told.app.version if told is not None and told.app is not None else "0"
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise SiteError(f"the server at {site} is too old ({version[:16]})", site=site, hint="run 1.19 or newer")
    return {
        "kind": "server",
        "version": version,
        "tls": secure,
        "jwt_rbac": bool(told.app.jwt_rbac),
        "audit": told.app.audit is not None,
        "telemetry": None,
        "peers": sorted(peer.uri for peer in getattr(cluster, "peers", {}).values()),
    }


def check_peers(site: str, peers: list[str], declared: Collection[str]) -> None:
    """Refuse a cluster that reaches beyond the peers which the fleet file names; a lone peer is the server itself."""
    known = {_spelt(uri) for uri in declared}
    strange = sorted(uri for uri in peers if _spelt(uri) not in known)
    if strange and (declared or len(peers) > 1):
        raise SiteError(
            f"the cluster at {site} has {len(strange)} peers that the fleet file does not name ({strange[0][:80]})",
            site=site,
            hint="a peer elsewhere holds copies there: remove it, or name it under peers of the shard",
        )


def placed(site: str, cluster: Any, held: models.CollectionClusterInfo) -> list[dict[str, Any]]:
    """Give where each shard of the collection lies; refuse one at a peer that the cluster does not know."""
    uris = {str(peer): each.uri for peer, each in getattr(cluster, "peers", {}).items()}
    found: list[dict[str, Any]] = [
        {"shard": each.shard_id, "peer": str(held.peer_id), "state": str(each.state.value), "points": each.points_count}
        for each in held.local_shards
    ]
    found += [
        {"shard": each.shard_id, "peer": str(each.peer_id), "state": str(each.state.value)}
        for each in held.remote_shards
    ]
    if lost := sorted({each["peer"] for each in found} - uris.keys()):
        raise SiteError(
            f"a shard at {site} lies at peer {lost[0]}, which its cluster does not name",
            site=site,
            hint="see /cluster of that server; move the shard back or remove the peer",
        )
    keys: dict[int, Any] = {each.shard_id: each.shard_key for each in held.local_shards}
    keys |= {each.shard_id: each.shard_key for each in held.remote_shards}
    found = [each | ({"shard_key": str(key)} if (key := keys[each["shard"]]) is not None else {}) for each in found]
    return [each | {"uri": uris[each["peer"]]} for each in sorted(found, key=lambda e: (e["shard"], e["peer"]))]


def check_snapshots(site: str, *, may: bool, there: int, demanded: bool) -> dict[str, Any]:
    """Say whether our key may make snapshots and how many there are; refuse both where they are to be forbidden."""
    if demanded and may:
        raise SiteError(
            f"the server at {site} lets our key make snapshots",
            site=site,
            hint='give a key without that right, or take snapshots = "forbidden" out of the fleet file',
        )
    if demanded and there:
        raise SiteError(
            f"{there} snapshots of our collection lie at {site}: copies that outlive an erasure",
            site=site,
            hint="delete them there",
        )
    return {"snapshots": there, "may_snapshot": may}


def _spelt(uri: str) -> str:
    return uri.strip().rstrip("/").lower()


def fault(site: str, error: UnexpectedResponse) -> SiteError:
    """Turn a refusal of the server into ours; its words are not quoted, they may hold content."""
    status = error.status_code
    if status == 507 or b"No space left" in error.content:
        return StorageFullError(f"the shard at {site} has no room", site=site, hint="add space there, then retry")
    if status in {401, 403}:
        return SiteError(
            f"the shard at {site} does not take our key", site=site, hint="see the key file and its rights"
        )
    return SiteError(f"the shard at {site} answered {status}", site=site, hint="see the server's log")
