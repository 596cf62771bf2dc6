"""Ask Domicile with OpenAI's own client: a collection is a model, citations are annotations.

    export DOMICILE_URL=http://127.0.0.1:8000 DOMICILE_KEY=…
    python examples/clients/openai_chat.py "How long must a passphrase be?"

Everything that OpenAI's shapes have no place for stands under `message.domicile`: receipt, zones, abstention.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from openai import APIStatusError, OpenAI


def connect(url: str, key: str, **options: Any) -> OpenAI:
    """Open a client that speaks to Domicile alone, whatever OPENAI_* variables say; `options` go to `OpenAI`."""
    return OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=key, **options)


def ask(client: OpenAI, question: str, collection: str = "default") -> Iterator[str]:
    """Give the lines to print: the answer with its marks, each source, the receipt; or why there is none."""
    try:
        reply = client.chat.completions.create(
            model=f"domicile/{collection}", messages=[{"role": "user", "content": question}]
        )
    except APIStatusError as error:
        problem = error.response.json()
        yield f"{problem.get('title', error.message)} ({error.status_code} {problem.get('code', '')})"
        yield from (f"  {reason['policy']}: {reason['text']}" for reason in problem.get("reasons", []))
        if problem.get("remedy"):
            yield f"  {problem['remedy']}"
        return
    message = reply.choices[0].message
    own: dict[str, Any] = (message.model_extra or {}).get("domicile", {})
    yield message.content or ""
    for citation in own.get("citations", []):
        page = f", page {citation['page']}" if citation.get("page") else ""
        yield f"  [{citation['index']}] {citation['name']}{page}: “{citation['quote']}”"
    if own.get("abstained"):
        yield f"  abstained: {own.get('reason')}"
    yield f"  receipt {own.get('receipt')}, processed in {', '.join(own.get('zones', []))}"


def stream(client: OpenAI, question: str, collection: str = "default") -> Iterator[str]:
    """Give the answer piece by piece, as it comes."""
    chunks = client.chat.completions.create(
        model=f"domicile/{collection}", messages=[{"role": "user", "content": question}], stream=True
    )
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def main() -> int:
    """Ask the question on the command line."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    client = connect(os.environ.get("DOMICILE_URL", "http://127.0.0.1:8000"), os.environ["DOMICILE_KEY"])
    print("\n".join(ask(client, sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
