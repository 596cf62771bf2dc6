"""Domicile as a LlamaIndex retriever: the rest of your pipeline stays, and only permitted passages reach it.

    from llamaindex_retriever import DomicileRetriever
    retriever = DomicileRetriever("http://127.0.0.1:8000", key, top_k=5)
    for found in retriever.retrieve("How long must a passphrase be?"):
        print(found.score, found.node.metadata["name"], found.node.metadata["page"], found.node.get_content())

What you do with the text afterwards is outside Domicile's rulings: a model you hand it to must stand in a permitted
place, too. To keep that inside, ask `/v1/answers` and let Domicile's own generator write (see openai_chat.py).
"""

from typing import Any

import httpx
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
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,  # a proxy from the environment would see the question
            transport=transport,
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        body = {"query": query_bundle.query_str, "top_k": self._top_k, "collection": self._collection}
        reply = self._http.post("/v1/search", json=body)
        if reply.status_code == httpx.codes.FORBIDDEN:
            raise DomicileRefusedError(reply.json())
        reply.raise_for_status()
        found = reply.json()
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
