"""Domicile for LlamaIndex: a retriever for your own pipeline, and a query engine that lets Domicile answer.

    from llamaindex_retriever import DomicileRetriever
    retriever = DomicileRetriever("http://127.0.0.1:8000", key, top_k=5)
    for found in retriever.retrieve("How long must a passphrase be?"):
        print(found.score, found.node.metadata["name"], found.node.metadata["page"], found.node.get_content())

    engine = DomicileQueryEngine("http://127.0.0.1:8000", key)
    answer = engine.query("How long must a passphrase be?")
    print(answer, answer.metadata["receipt"], [each.metadata["page"] for each in answer.source_nodes])

What you do with the text afterwards is outside Domicile's rulings: a model you hand it to must stand in a permitted
place, too. The query engine keeps that inside: Domicile's own answerer writes, and quotes.
"""

import asyncio
from typing import Any

import httpx
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode


class DomicileRefusedError(Exception):
    """The policy permits no place for this question; `reasons` names the clauses, `remedy` the nearest way out."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or "refused")
        self.reasons: list[dict[str, str]] = problem.get("reasons", [])
        self.remedy: str = problem.get("remedy", "")


class DomicileRetriever(BaseRetriever):
    """Finds passages over `POST /v1/search`; node ids are stable, metadata says where each passage came from."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        top_k: int = 5,
        collection: str = "default",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__()
        self._top_k, self._collection = top_k, collection
        self._http = _client(url, key, transport)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        body = {"query": query_bundle.query_str, "top_k": self._top_k, "collection": self._collection}
        found = _asked(self._http, "/v1/search", body)
        return [NodeWithScore(node=_node(each, found["receipt"]), score=each["score"]) for each in found["results"]]


def _node(result: dict[str, Any], receipt: str) -> TextNode:
    """Make LlamaIndex's node; metadata is kept out of what is embedded or sent to a model."""
    names = ("document_id", "name", "page", "start", "end", "site", "zone")
    metadata = {name: result[name] for name in names} | {"receipt": receipt}
    return TextNode(
        id_=f"{result['document_id']}:{result['start']}-{result['end']}",
        text=result["text"],
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),
        excluded_llm_metadata_keys=[name for name in metadata if name not in {"name", "page"}],
    )


class DomicileQueryEngine(BaseQueryEngine):
    """Answers over `POST /v1/answers`: quoted text, its sources as nodes, and the Receipt in the metadata.

    An abstention is an answer without sources, with `metadata["abstained"]`.
    """

    def __init__(
        self, url: str, key: str, *, collection: str = "default", transport: httpx.BaseTransport | None = None
    ) -> None:
        super().__init__(callback_manager=CallbackManager([]))
        self._collection = collection
        self._http = _client(url, key, transport)

    def _query(self, query_bundle: QueryBundle) -> Response:
        body = {"question": query_bundle.query_str, "collection": self._collection}
        found = _asked(self._http, "/v1/answers", body)
        sources = [
            NodeWithScore(node=_node(each | {"text": each["quote"]}, found["receipt"]), score=each["score"])
            for each in found["citations"]
        ]
        kept = ("receipt", "abstained", "confidence", "zones", "withheld", "answered_by")
        return Response(found["answer"], source_nodes=sources, metadata={name: found[name] for name in kept})

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        return await asyncio.to_thread(self._query, query_bundle)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}  # prompts are Domicile's own


def _client(url: str, key: str, transport: httpx.BaseTransport | None) -> httpx.Client:
    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,  # a proxy from the environment would see the question
        transport=transport,
    )


def _asked(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = http.post(path, json=body)
    if reply.status_code == httpx.codes.FORBIDDEN:
        raise DomicileRefusedError(reply.json())
    reply.raise_for_status()
    found: dict[str, Any] = reply.json()
    return found
