"""What an application does with LangChain; prints what came of it as JSON.

Run as a program of its own, on the clients of `.venv/clients`: `python langchain_app.py URL KEY REFUSED_KEY`.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

RETRIEVER = Path(__file__).parents[2] / "examples" / "clients" / "langchain_retriever.py"
QUESTION = "When does the east gate open on working days?"


def main(url: str, key: str, refused: str) -> dict[str, Any]:
    """Chat, stream, embed, retrieve, be refused."""
    told: dict[str, Any] = {}
    chat = ChatOpenAI(model="domicile/default", base_url=f"{url}/v1", api_key=key)
    told["plain"] = chat.invoke(QUESTION).content
    told["streamed"] = "".join(str(part.content) for part in chat.stream(QUESTION))
    # LangChain's own tokenizer is OpenAI's, and would be fetched: texts go as they are
    embeddings = OpenAIEmbeddings(
        model="domicile/embedding", base_url=f"{url}/v1", api_key=key, check_embedding_ctx_length=False
    )
    told["embedding"] = [len(each) for each in embeddings.embed_documents(["gate", "yard"])]
    ours = runpy.run_path(str(RETRIEVER))
    [first, *_] = ours["DomicileRetriever"](url=url, key=key).invoke(QUESTION)
    told["retrieved"] = {"text": first.page_content, "metadata": first.metadata}
    try:
        ours["DomicileRetriever"](url=url, key=refused).invoke(QUESTION)
    except ours["DomicileRefusedError"] as error:
        told["refused"] = [reason["policy"] for reason in error.reasons] or error.remedy
    return told


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
