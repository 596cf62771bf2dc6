"""The other side: plain llama-index with the same model, on the same documents, in a process of its own.

SentenceSplitter counting with the model's own tokenizer, HuggingFaceEmbedding from the same local folder,
QdrantVectorStore on a local path. No sealing, no ruling, no record: what a first example of the library gives.
"""

from residency.silence import silence

silence()

import os  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from llama_index.core import Document, StorageContext, VectorStoreIndex  # noqa: E402
from llama_index.core.node_parser import SentenceSplitter  # noqa: E402
from llama_index.embeddings.huggingface import HuggingFaceEmbedding  # noqa: E402
from llama_index.vector_stores.qdrant import QdrantVectorStore  # noqa: E402
from qdrant_client import QdrantClient  # noqa: E402

from bench import judging  # noqa: E402
from bench.measuring import answer, next_task, read_job, timed, tree_memory  # noqa: E402

TOKENS = 200


class Plain:
    """One index."""

    def __init__(self, job: dict[str, Any], batch: int) -> None:
        self.embedder = HuggingFaceEmbedding(model_name=job["model"], device="cpu", embed_batch_size=batch)
        tokenizer = self.embedder._model.tokenizer  # noqa: SLF001 - the library's own recipe for counting alike
        self.splitter = SentenceSplitter(
            chunk_size=TOKENS, chunk_overlap=0, tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False)
        )
        self.client = QdrantClient(path=job["folder"])

    def build(self, name: str, documents: list[dict[str, str]]) -> VectorStoreIndex:
        store = QdrantVectorStore(collection_name=name, client=self.client)
        return VectorStoreIndex.from_documents(
            [
                Document(
                    text=each["text"],
                    metadata={"name": each["name"]},
                    excluded_embed_metadata_keys=["name"],
                )
                for each in documents
            ],
            storage_context=StorageContext.from_defaults(vector_store=store),
            transformations=[self.splitter],
            embed_model=self.embedder,
        )

    def ask(self, questions: list[str], top_k: int) -> list[float]:
        """Give the seconds of each question."""
        store = QdrantVectorStore(collection_name="all", client=self.client)
        index = VectorStoreIndex.from_vector_store(store, embed_model=self.embedder)
        retriever = index.as_retriever(similarity_top_k=top_k)
        times = []
        for question in questions:
            mark = time.perf_counter()
            retriever.retrieve(question)
            times.append(time.perf_counter() - mark)
        return times


def quality(job: dict[str, Any], plain: Plain) -> dict[str, Any]:
    retriever = plain.build("examples", job["examples"]).as_retriever(similarity_top_k=10)
    rows = []
    for item in job["asked"]:
        nodes = retriever.retrieve(item["question"])
        row = {"id": item["id"], "best_score": round(nodes[0].score or 0.0, 3)}
        if item.get("document"):
            row["rank"] = judging.rank(item, [(each.node.metadata["name"], each.node.get_content()) for each in nodes])
        rows.append(row)
    return {"rows": rows}


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    plain = Plain(job, job["batch"])
    while (task := next_task()) is not None:
        match task["do"]:
            case "warm":
                plain.build("warm", [{"name": "warm.txt", "text": job["documents"][0]["text"][:2000]}])
                answer({"threads": torch.get_num_threads(), "embed_batch_size": job["batch"]})
            case "ingest":
                seconds, _ = timed(lambda part=task: plain.build("all", job["documents"][part["first"] : part["last"]]))
                answer({"seconds": seconds, "pieces": plain.client.count("all").count})
            case "ask":
                answer({"times": plain.ask(job["questions"][task["first"] : task["last"]], job["top_k"])})
            case "memory":
                answer(tree_memory(os.getpid()))
            case _:
                answer(quality(job, plain))
    plain.client.close()


if __name__ == "__main__":
    main()
