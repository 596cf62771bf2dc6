"""Domicile as a LangChain retriever; chat needs none, since `ChatOpenAI` takes a base URL.

    from langchain_retriever import DomicileRetriever
    retriever = DomicileRetriever(url="http://127.0.0.1:8000", key=key, top_k=5)
    for document in retriever.invoke("How long must a passphrase be?"):
        print(document.metadata["name"], document.metadata["page"], document.page_content)

    from langchain_openai import ChatOpenAI
    chat = ChatOpenAI(base_url="http://127.0.0.1:8000/v1", api_key=key, model="domicile/default")
    print(chat.invoke("How long must a passphrase be?").content)

LangChain drops annotations on this endpoint, so the marks in the text carry the citations. Needs `langchain-core`, and
`langchain-openai` for the chat; Domicile itself needs neither.
"""

from typing import Any

import httpx
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import SecretStr


class DomicileRefusedError(Exception):
    """The policy permits no place for this question; `reasons` names the clauses, `remedy` the nearest way out."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or "refused")
        self.reasons: list[dict[str, str]] = problem.get("reasons", [])
        self.remedy: str = problem.get("remedy", "")


class DomicileRetriever(BaseRetriever):
    """Finds passages over `POST /v1/search`; metadata says where each came from."""

    url: str
    key: SecretStr
    top_k: int = 5
    collection: str = "default"
    transport: Any = None
    """For tests: an httpx transport."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        body = {"query": query, "top_k": self.top_k, "collection": self.collection}
        headers = {"Authorization": f"Bearer {self.key.get_secret_value()}"}
        # a proxy from the environment would see the question
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60, transport=self.transport) as http:
            reply = http.post("/v1/search", json=body, headers=headers)
        if reply.status_code == httpx.codes.FORBIDDEN:
            raise DomicileRefusedError(reply.json())
        reply.raise_for_status()
        found = reply.json()
        return [
            Document(
                id=f"{each['document_id']}:{each['start']}-{each['end']}",
                page_content=each["text"],
                metadata={name: value for name, value in each.items() if name != "text"}
                | {"receipt": found["receipt"]},
            )
            for each in found["results"]
        ]
