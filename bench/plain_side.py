"""The other side: plain llama-index with the same model, on the same documents, in a process of its own.

SentenceSplitter counting with the model's own tokenizer, HuggingFaceEmbedding from the same local folder,
QdrantVectorStore on a local path. No sealing, no ruling, no record: what a first example of the library gives.
"""

from residency.silence import silence

silence()

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
from bench.measuring import read_job, spread, tree_memory, write_result  # noqa: E402

TOKENS = 200


class Plain:
    """One index."""

    def __init__(self, job: dict[str, Any], batch: int) -> None:
        self.embedder = HuggingFaceEmbedding(model_name=job["model"], device="cpu", embed_batch_size=batch)
        tokenizer = self.embedder._model.tokenizer
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


def speed(job: dict[str, Any], plain: Plain) -> dict[str, Any]:
    plain.build("warm", [{"name": "warm.txt", "text": job["documents"][0]["text"][:2000]}])
    began = time.perf_counter()
    index = plain.build("all", job["documents"])
    seconds = time.perf_counter() - began
    made = plain.client.count("all").count
    retriever = index.as_retriever(similarity_top_k=job["top_k"])
    for question in job["questions"][:5]:
        retriever.retrieve(question)
    times = []
    for question in job["questions"]:
        mark = time.perf_counter()
        retriever.retrieve(question)
        times.append(time.perf_counter() - mark)
    return {
        "seconds": seconds,
        "passages_per_s": job["count"] / seconds,
        "pieces": made,
        "query": spread(times),
    }


def quality(job: dict[str, Any], plain: Plain) -> dict[str, Any]:
    retriever = plain.build("examples", job["examples"]).as_retriever(similarity_top_k=10)
    ranks, best = [], {"answerable": [], "unanswerable": []}
    for item in job["asked"]:
        found = [(each.node.metadata["name"], each.node.get_content()) for each in retriever.retrieve(item["question"])]
        score = retriever.retrieve(item["question"])[0].score or 0.0
        best["answerable" if item.get("document") else "unanswerable"].append(round(score, 3))
        if item.get("document"):
            ranks.append(judging.rank(item, found))
    return judging.shares(ranks) | {"best_score": best}


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    plain = Plain(job, job["batch"])
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "embed_batch_size": job["batch"]}
    import os

    result["speed"] = speed(job, plain)
    result["memory"] = tree_memory(os.getpid())
    if job["examples"]:
        result["quality"] = quality(job, plain)
    write_result(result)
    plain.client.close()


if __name__ == "__main__":
    main()
