"""One asker against eight at once, and an Answer against a search, on one home: `python -m bench.concurrent`.

Prints throughput of one asker and of `BENCH_CLIENTS`, their ratio, and what an extractive Answer takes beside a search.
An Answer is released whole, so its first token leaves when its last does. No two questions are the same, so that no
vector is remembered; one question asked again is timed by itself. `BENCH_COUNT` says how many passages,
`BENCH_PRECISION` the embedder's arithmetic.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Awaitable, Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from bench import corpus  # noqa: E402
from bench.measuring import machine, spread  # noqa: E402
from bench.our_side import TENANT, take_in  # noqa: E402
from residency.decision import Principal  # noqa: E402
from service.answering import Question  # noqa: E402
from service.bootstrap import domicile  # noqa: E402
from service.cli.common import operator  # noqa: E402
from service.findings import Search  # noqa: E402
from service.home import office, prepare  # noqa: E402
from service.house import House  # noqa: E402
from service.settings import load  # noqa: E402

WORK = Path(__file__).parent.parent / ".cache" / "bench" / f"concurrent-{os.getpid()}"
CLIENTS = int(os.environ.get("BENCH_CLIENTS", "8"))
EACH = 40
"""Questions of the one asker; the many share as many times `CLIENTS`."""


async def timed(story: Callable[[str], Awaitable[Any]], questions: list[str]) -> list[float]:
    """Ask one after another; give the seconds of each."""
    times = []
    for question in questions:
        began = time.perf_counter()
        await story(question)
        times.append(time.perf_counter() - began)
    return times


async def measure(house: House, principal: Principal, questions: list[str]) -> dict[str, Any]:
    """Take turns: the one, the many, answers; questions are used up."""
    taken = iter(questions)

    def some(count: int) -> list[str]:
        return [next(taken) for _ in range(count)]

    async def search(question: str) -> None:
        await house.searching.search(principal, Search(question))

    async def answer(question: str) -> None:
        await house.answering.answer(principal, Question(question))

    await timed(search, some(5))
    one, many, answers, began = list[float](), list[float](), list[float](), 0.0
    seconds = {"one": 0.0, "many": 0.0}
    for _ in range(4):
        began = time.perf_counter()
        one += await timed(search, some(EACH // 4))
        seconds["one"] += time.perf_counter() - began
        began = time.perf_counter()
        for times in await asyncio.gather(*(timed(search, some(EACH // 4)) for _ in range(CLIENTS))):
            many += times
        seconds["many"] += time.perf_counter() - began
        answers += await timed(answer, some(EACH // 4))
    rates = len(one) / seconds["one"], len(many) / seconds["many"]
    again = await timed(search, [questions[0]] * EACH)
    first, whole = spread(one), spread(answers)
    return {
        "searches_per_s": {"one": round(rates[0], 1), "clients": CLIENTS, "together": round(rates[1], 1)},
        "throughput_ratio": round(rates[1] / rates[0], 2),
        "search": first,
        "search_among_many": spread(many),
        "the_same_question_again": spread(again[1:]),
        "answer_first_and_last_token": whole,
        "answer_ratio": round(whole["p50_ms"] / first["p50_ms"], 2),
    }


async def main() -> None:
    """Fill a home, measure, print as JSON."""
    count = int(os.environ.get("BENCH_COUNT", "1000"))
    found = await corpus.passages(count, os.environ.get("BENCH_PASSAGES", ""))
    wanted = 5 + 4 * (EACH // 4) * (CLIENTS + 2)
    questions = [
        f"{number} {text}" for number, text in zip(range(wanted), corpus.asked(found, count) * wanted, strict=False)
    ]
    try:
        prepare(WORK, zone="DE", operator="DE")
        settings = load(WORK, environ={"DOMICILE_MODELS__PRECISION": os.environ.get("BENCH_PRECISION", "fp32")})
        with office(settings) as accounts:
            accounts.ensure_tenant(TENANT, ceiling=settings.here.default_ceiling, zone="DE")
        principal = operator(settings, TENANT)
        async with domicile(settings) as house:
            filled = await take_in(house, principal, corpus.documents(found))
            figures = await measure(house, principal, questions)
        print(json.dumps({"machine": machine(), "passages": filled["pieces"]} | figures, indent=1))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
