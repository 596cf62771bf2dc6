"""remote_calls: the calls to a Qdrant server, each repeated when the line or the server fails for a moment.

REST alone: gRPC's connects escape the audit hook, and the server cannot ask gRPC's callers for certificates. No proxy,
no redirect, no plain HTTP but to loopback. Everything here can be repeated without harm.
Where a shard key is set it goes with every call: without it a read would ask all shards.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeVar
from uuid import uuid4

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.context_headers import headers
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from residency.errors import SiteError
from residency.journal import Touch
from residency.outlets.shards import remote_terms as terms
from residency.outlets.tls import explain

T = TypeVar("T")

PAUSES: Final = (0.1, 0.4)
"""Seconds before the second and the third try."""
LONGEST_PAUSE: Final = 5.0
"""Seconds; a server that wants a longer one is reported as busy."""
MOMENTARY: Final = frozenset({429, 502, 503, 504})
CALL_WITHIN: Final = 600
"""Seconds that httpx would wait; `passing` ends calls sooner."""

_touch: ContextVar[Touch | None] = ContextVar("shard_touch", default=None)


@contextmanager
def calling(touch: Touch) -> Iterator[None]:
    """Give the calls made inside one x-request-id, and record it and the server's certificate in the Touch."""
    touch.request = uuid4().hex
    token = _touch.set(touch)
    try:
        with headers({"x-request-id": touch.request}):
            yield
    finally:
        _touch.reset(token)


async def _note_peer(response: Any) -> None:
    touch, stream = _touch.get(), response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    if touch is not None and tls is not None:
        touch.peer = hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()


class Calls:
    """What can be asked of one server; collections are named by the caller."""

    def __init__(
        self, site: str, url: str, *, api_key: str, ssl_context: ssl.SSLContext | None, key: str | None
    ) -> None:
        self.site = site
        self._key = key
        shared: dict[str, Any] = {
            "url": url,
            "prefer_grpc": False,
            "check_compatibility": False,  # it would connect from a thread, before any ruling
            "trust_env": False,
            "verify": ssl_context if ssl_context is not None else True,
            "timeout": CALL_WITHIN,
            "pool_size": 32,
            "event_hooks": {"response": [_note_peer]},
        }
        self._qdrant = AsyncQdrantClient(headers={"api-key": api_key}, **shared)
        self._keyless = AsyncQdrantClient(**shared)

    async def attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do a call that can be repeated without harm, again when its failure may be momentary."""
        for pause in PAUSES:
            try:
                return await call()
            except ResourceExhaustedResponse as error:
                if error.retry_after_s > LONGEST_PAUSE:
                    raise self._fault(error) from error
                await asyncio.sleep(error.retry_after_s)
            except ResponseHandlingException:
                await asyncio.sleep(pause)
            except UnexpectedResponse as error:
                if error.status_code not in MOMENTARY:
                    raise self._fault(error) from error
                await asyncio.sleep(pause)
        try:
            return await call()
        except (ResourceExhaustedResponse, ResponseHandlingException, UnexpectedResponse) as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> SiteError:
        match error:
            case ResourceExhaustedResponse():
                return SiteError(
                    f"the shard at {self.site} is busy", site=self.site, hint=f"try again in {error.retry_after_s} s"
                )
            case UnexpectedResponse():
                return terms.fault(self.site, error)
            case _:
                source = getattr(error, "source", error)
                cause, remedy = explain(error) or (type(source).__name__, "see whether its server runs")
                return SiteError(f"the shard at {self.site} is out of reach ({cause})", site=self.site, hint=remedy)

    # --- points ---

    async def upsert(self, name: str, points: list[models.PointStruct]) -> None:
        """Write points; returns when the server has completed it."""
        result = await self.attempt(lambda: self._qdrant.upsert(name, points, wait=True, shard_key_selector=self._key))
        self._demand_completed(result)

    async def delete(self, name: str, ids: list[str]) -> None:
        """Delete points in the order of writes; returns when the server has completed it."""
        result = await self.attempt(
            lambda: self._qdrant.delete(
                name,
                models.PointIdsList(points=list(ids)),
                wait=True,
                ordering=models.WriteOrdering.STRONG,
                shard_key_selector=self._key,
            )
        )
        self._demand_completed(result)

    def _demand_completed(self, result: models.UpdateResult) -> None:
        if result.status != models.UpdateStatus.COMPLETED:
            raise SiteError(
                f"the shard at {self.site} answered {result.status} to a write",
                site=self.site,
                hint="whether it was done is unknown; do the same again, that is harmless",
            )

    def question(
        self,
        leg: terms.Leg,
        where: models.Filter,
        limit: int,
        *,
        payload: bool = False,
        vector: list[str] | None = None,
    ) -> models.QueryRequest:
        """Make one question of a batch."""
        return models.QueryRequest(
            query=leg.query,
            using=leg.using,
            params=leg.params,
            filter=where,
            limit=limit,
            with_payload=payload,
            with_vector=vector or False,
            shard_key=self._key,
        )

    async def batch(self, name: str, questions: list[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        """Ask several questions at once."""
        if not questions:
            return []
        answers = await self.attempt(lambda: self._qdrant.query_batch_points(name, questions))
        return [answer.points for answer in answers]

    async def retrieve(self, name: str, ids: list[str], *, payload: bool, vectors: bool) -> list[models.Record]:
        """Give the points that exist."""
        return await self.attempt(
            lambda: self._qdrant.retrieve(
                name, ids, with_payload=payload, with_vectors=vectors, shard_key_selector=self._key
            )
        )

    async def count(self, name: str, where: models.Filter | None) -> int:
        """Count exactly."""
        result = await self.attempt(lambda: self._qdrant.count(name, where, exact=True, shard_key_selector=self._key))
        return result.count

    async def page(
        self, name: str, where: models.Filter | None, *, offset: Any, limit: int, whole: bool
    ) -> tuple[list[models.Record], Any]:
        """Give a page of points in the order of ids, `whole` with payload and vectors, and where the next begins."""
        return await self.attempt(
            lambda: self._qdrant.scroll(
                name,
                where,
                offset=offset,
                limit=limit,
                with_payload=whole,
                with_vectors=whole,
                shard_key_selector=self._key,
            )
        )

    # --- collections ---

    async def generation(self, alias: str) -> str | None:
        """Name the collection behind an alias; None when there is none."""
        answer = await self.attempt(self._qdrant.get_aliases)
        return next((each.collection_name for each in answer.aliases if each.alias_name == alias), None)

    async def info(self, name: str) -> models.CollectionInfo:
        """Give a collection's settings."""
        return await self.attempt(lambda: self._qdrant.get_collection(name))

    async def create(self, name: str, dimension: int) -> None:
        """Make a collection with its payload indexes, in place of one of that name that an earlier try left."""
        await self.drop(name)
        settings = terms.settings(dimension)
        if self._key:
            settings["sharding_method"] = models.ShardingMethod.CUSTOM
        await self.attempt(lambda: self._qdrant.create_collection(name, **settings))
        if self._key:
            key = self._key
            await self.attempt(lambda: self._qdrant.create_shard_key(name, key))
        for field, schema in terms.INDEXES.items():
            await self.attempt(partial(self._qdrant.create_payload_index, name, field, schema, wait=True))

    async def point(self, alias: str, name: str) -> None:
        """Make the alias name this collection, and no other from the same moment on."""
        await self.attempt(lambda: self._qdrant.update_collection_aliases(terms.moved(alias, name)))

    async def drop(self, name: str) -> int:
        """Remove a collection with its snapshots and give their number; harmless when it is not there."""
        exists = await self.attempt(lambda: self._qdrant.collection_exists(name))
        if not exists:
            return 0
        snapshots = await self.attempt(lambda: self._qdrant.list_snapshots(name))
        for each in snapshots:
            await self.attempt(partial(self._qdrant.delete_snapshot, name, each.name))
        await self.attempt(lambda: self._qdrant.delete_collection(name))
        return len(snapshots)

    # --- the server ---

    async def refuses_strangers(self) -> bool:
        """Whether a call without the key is refused, as it must be."""
        try:
            await self._keyless.get_collections()
        except UnexpectedResponse as error:
            return error.status_code in {401, 403}
        except ResponseHandlingException:
            return True  # the keyed call beside it will say what is wrong
        return False

    async def told(self) -> tuple[Any, Any]:
        """Give what the server says of itself and of its cluster."""
        answer = await self.attempt(lambda: self._qdrant.http.service_api.telemetry(details_level=1))
        return answer.result, await self.attempt(self._qdrant.cluster_status)

    async def may_snapshot(self) -> bool:
        """Whether our key may make snapshots: asked for one of a collection that does not exist, so none is made.

        Access is checked before the name is looked up (qdrant/qdrant: src/common/snapshots.rs), so 403 is a no.
        """
        try:
            await self._qdrant.create_snapshot(f"domicile-probe-{uuid4().hex}", wait=True)
        except UnexpectedResponse as error:
            return error.status_code not in {401, 403}
        except (ResourceExhaustedResponse, ResponseHandlingException) as error:
            raise self._fault(error) from error
        return True

    async def snapshots(self, name: str) -> int:
        """Count the snapshots of a collection."""
        return len(await self.attempt(lambda: self._qdrant.list_snapshots(name)))

    async def placement(self, name: str) -> models.CollectionClusterInfo:
        """Give which peer of the cluster holds which shards of a collection."""
        answer = await self.attempt(
            lambda: self._qdrant.http.distributed_api.collection_cluster_info(collection_name=name)
        )
        if answer.result is None:
            raise SiteError(f"the cluster at {self.site} does not say where its shards lie", site=self.site)
        return answer.result

    async def aclose(self) -> None:
        """Close the connections."""
        await self._qdrant.close()
        await self._keyless.close()
