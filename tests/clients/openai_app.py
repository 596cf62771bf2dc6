"""What an application does with OpenAI's client; prints what came of it as JSON.

Run as a program of its own, so that it may stand on another version than the one beside us:
`python openai_app.py URL KEY REFUSED_KEY`.
"""

import json
import sys
import time
from typing import Any

import openai

MODEL = "domicile/default"
MESSAGES: Any = [{"role": "user", "content": "When does the east gate open on working days?"}]


def main(url: str, key: str, refused: str) -> dict[str, Any]:
    """Do everything once."""
    seen: list[Any] = []

    def client(secret: str) -> openai.OpenAI:
        http: Any = openai.DefaultHttpxClient(event_hooks={"request": [seen.append]}, trust_env=False)
        return openai.OpenAI(api_key=secret, base_url=f"{url}/v1", http_client=http)

    told: dict[str, Any] = {"version": openai.__version__}
    with client(key) as sdk:
        told["files"] = files(sdk)
        done = sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
        told["plain"] = done.choices[0].message.model_dump()
        told["usage"] = done.usage.total_tokens if done.usage else 0
        chunks = list(sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
        deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
        told["streamed"] = "".join(delta["content"] or "" for delta in deltas)
        told["carrying"] = sum("annotations" in delta for delta in deltas)
        told["finish"] = chunks[-1].choices[0].finish_reason
        with sdk.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
            told["accumulated"] = stream.get_final_completion().choices[0].message.model_dump()
        told["models"] = [model.id for model in sdk.models.list()]
        told["embedding"] = len(sdk.embeddings.create(model="domicile/embedding", input="gate").data[0].embedding)
        told["errors"] = [failed(lambda: sdk.chat.completions.create(model="domicile/none-such", messages=MESSAGES))]
        told["errors"] += [failed(lambda: sdk.chat.completions.create(model=MODEL, messages=MESSAGES, n=2))]
    with client(refused) as sdk:
        before = len(seen)
        told["refusal"] = failed(lambda: sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
        told["calls_of_refusal"] = len(seen) - before
    with client("dom_wrong") as sdk:
        told["errors"] += [failed(sdk.models.list)]
    return told


def files(sdk: openai.OpenAI) -> dict[str, Any]:
    """Upload, put into a vector store, wait, search, have back, forget."""
    body = b"The harbour crane lifts forty tonnes. Its rope is renewed each spring.\n"
    where = {"Domicile-Jurisdiction": "DE"}
    file = sdk.files.create(file=("crane.txt", body), purpose="assistants", extra_headers=where)
    store = sdk.vector_stores.create(name="cranes")
    sdk.vector_stores.files.create(vector_store_id=store.id, file_id=file.id, attributes={"berth": 7})
    until = time.monotonic() + 60
    while (state := sdk.vector_stores.files.retrieve(file.id, vector_store_id=store.id).status) == "in_progress":
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    wanted: Any = {"type": "eq", "key": "berth", "value": 7}
    page = sdk.vector_stores.search(store.id, query="How much does the crane lift?", filters=wanted)
    return {
        "state": state,
        "found": [(each.filename, each.attributes, each.content[0].text) for each in page.data],
        "back": sdk.files.content(file.id).read().decode(),
        "deleted": sdk.files.delete(file.id).deleted,
    }


def failed(call: Any) -> tuple[str, str | None]:
    """Give the class and the code of the error that a call ends with."""
    try:
        call()
    except openai.APIStatusError as error:
        return type(error).__name__, error.code
    return "none", None


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
