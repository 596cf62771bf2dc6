"""Retrieval on sealed data against the same recipe in the clear: `python -m bench.retrieval en.jsonl de.jsonl`.

A file holds one language: lines `{"id", "language", "text"}` are passages, each taken in as a Document of its own, and
lines `{"question", "passage"}` are questions whose right passage is `passage`. Printed are nDCG@10 and hit@1 of each
leg alone, of the plain weighted sum over exact scores of all passages, and of Domicile with everything on; how often
the first and the first three are those of the plain sum with the weights that are stored; and the plain sum for every
weight of the dense leg, with the weight that is learned from it (`weights` of an embedder, docs/sites.md).
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench.our_side import TENANT, take_in  # noqa: E402
from ingestion.points import embed  # noqa: E402
from ingestion.splitter import Piece  # noqa: E402
from residency.decision import Principal  # noqa: E402
from residency.lexicon import AVERAGE, K1, PREFIX_SHARE, B, stem, words  # noqa: E402
from residency.lexicon import weight as level  # noqa: E402
from residency.route import Action  # noqa: E402
from service.bootstrap import domicile  # noqa: E402
from service.cli.common import operator  # noqa: E402
from service.fusion import SHIPPED, UNKNOWN, learn  # noqa: E402
from service.home import office, prepare  # noqa: E402
from service.house import House  # noqa: E402
from service.searching import Results, Search, question_tag  # noqa: E402
from service.settings import load  # noqa: E402

DEPTH = 10
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
Scores = np.ndarray[Any, np.dtype[np.float64]]


def read(path: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line for line in lines if "text" in line], [line for line in lines if "question" in line]


# --- in the clear -----------------------------------------------------------------------------------------------------


def lexical(passages: Sequence[str], questions: Sequence[str], language: str, *, stored: bool = False) -> Scores:
    """BM25 over stems, and over first letters at half weight, with exact weights and the true average length.

    `stored` takes the seven levels and the fixed average length that a shard stores instead.
    """

    def terms(text: str) -> Counter[str]:
        stream = words(text)
        return Counter(stem(word, language) for word in stream) + Counter("^" + w[:5] for w in stream if len(w) > 5)

    held = [terms(text) for text in passages]
    lengths = [len(words(text)) for text in passages]
    average = sum(lengths) / len(lengths)
    inverted: dict[str, list[tuple[int, float]]] = {}
    for number, (counts, length) in enumerate(zip(held, lengths, strict=True)):
        for term, count in counts.items():
            share = PREFIX_SHARE if term[0] == "^" else 1.0
            exact = count * (K1 + 1) / (count + K1 * (1 - B + B * length / average))
            kept = level(count, length, AVERAGE) if stored else exact
            inverted.setdefault(term, []).append((number, share * kept))
    scores = np.zeros((len(questions), len(passages)))
    for row, question in zip(scores, questions, strict=True):
        for term, count in terms(question).items():
            found = inverted.get(term, [])
            idf = math.log(1 + (len(passages) - len(found) + 0.5) / (len(found) + 0.5))
            for number, weight in found:
                row[number] += count * idf * weight
    return scores


async def dense(house: House, principal: Principal, passages: Sequence[str], questions: Sequence[str]) -> Scores:
    """Cosines of whole texts: a passage longer than the model reads has the mean of its windows."""
    tag = question_tag(house.engine, principal)
    permits, _ = house.engine.permitted(principal, Action.EMBED, (tag,), "embedder", activity="search")
    route = permits[0].route
    embedder = house.embedders[route.site]
    pieces = [Piece(no, text, 0, len(text), 1, "", "und") for no, text in enumerate(passages)]
    made = [await embed(embedder, route, pieces[at : at + 16]) for at in range(0, len(pieces), 16)]
    asked = [await embedder.embed(route, [question], question=True) for question in questions]
    return np.asarray(np.concatenate(asked) @ np.concatenate(made).T, dtype=np.float64)


def added(sense: Scores, said: Scores, weight: float) -> Scores:
    """The plain weighted sum: each leg divided by its best, question by question."""
    legs = [np.maximum(leg, 0.0) / np.maximum(leg.max(axis=1, keepdims=True), 1e-9) for leg in (sense, said)]
    return np.asarray(weight * legs[0] + (1 - weight) * legs[1])


def ranking(row: Scores, ids: Sequence[str]) -> list[str]:
    return [ids[at] for at in sorted(range(len(ids)), key=lambda at: (-row[at], ids[at]))[:DEPTH]]


# --- figures ----------------------------------------------------------------------------------------------------------


def judged(found: Sequence[Sequence[str]], right: Sequence[str]) -> tuple[float, float]:
    """nDCG@10 with one right passage, and hit@1."""
    ranks = [listed.index(one) + 1 if one in listed else 0 for listed, one in zip(found, right, strict=True)]
    gains = [1 / math.log2(rank + 1) if rank else 0.0 for rank in ranks]
    return sum(gains) / len(gains), sum(rank == 1 for rank in ranks) / len(ranks)


def said(found: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    return "{:.4f} / {:.3f}".format(*judged(found, right))


async def sealed(house: House, principal: Principal, questions: Sequence[str]) -> list[list[str]]:
    """Names of the Documents found, in order, each once."""
    found = []
    for question in questions:
        results = await house.searching.search(principal, Search(question, top_k=DEPTH))
        assert isinstance(results, Results)
        found.append(list(dict.fromkeys(each.name.removesuffix(".txt") for each in results.findings.passages)))
    return found


async def measure(path: Path, folder: Path) -> list[Any]:
    passages, asked = read(path)
    language, ids = passages[0]["language"], [each["id"] for each in passages]
    texts, questions = [each["text"] for each in passages], [each["question"] for each in asked]
    right = [each["passage"] for each in asked]
    prepare(folder, zone="DE", operator="DE")
    settings = load(folder, environ={})
    with office(settings) as accounts:
        accounts.ensure_tenant(TENANT, ceiling=["EEA"], zone="DE")
    async with domicile(settings) as house:
        principal = operator(settings, TENANT)
        documents = [{"name": f"{each['id']}.txt", "text": each["text"]} for each in passages]
        pieces = (await take_in(house, principal, documents))["pieces"]
        sense, words_ = await dense(house, principal, texts, questions), lexical(texts, questions, language)
        ours = await sealed(house, principal, questions)
        digest = next(iter(house.embedders.values())).digest
    by_weight: Mapping[float, float] = {
        weight: judged([ranking(row, ids) for row in added(sense, words_, weight)], right)[0] for weight in WEIGHTS
    }
    weight = SHIPPED.get(digest, {}).get(language, UNKNOWN)
    plain = [ranking(row, ids) for row in added(sense, words_, weight)]
    levels = added(sense, lexical(texts, questions, language, stored=True), weight)
    kept = [ranking(row, ids) for row in levels]
    same = [sum(a[:k] == b[:k] for a, b in zip(ours, kept, strict=True)) / len(kept) for k in (1, 3)]
    print(language, "by dense weight:", "  ".join(f"{key}: {value:.4f}" for key, value in by_weight.items()))
    return [
        language,
        len(texts),
        pieces,
        len(questions),
        said([ranking(row, ids) for row in sense], right),
        said([ranking(row, ids) for row in words_], right),
        said(plain, right),
        said(ours, right),
        "{:.3f} / {:.3f}".format(*same),
        f"{weight} / {learn(by_weight)}",
    ]


def main() -> None:
    rows = []
    for path in sys.argv[1:]:
        folder = Path(tempfile.mkdtemp(prefix="domicile-bench-"))
        try:
            rows.append(asyncio.run(measure(Path(path), folder)))
        finally:
            shutil.rmtree(folder)
    head = ["", "documents", "passages", "questions", "dense", "words", "plain sum", "Domicile", "same 1 / 3", "weight"]
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
