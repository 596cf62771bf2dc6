"""Attending: a story that ends when its asker goes away or its time is up; nobody works for a closed connection.

Rule kept here: the story is cancelled where it stands, so a waiting search, embedder or generator stops; whoever tells
it (`service/searching.py`, `service/answering.py`) writes the Receipt that says `cancelled`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from service.api.replies import Asking
from service.errors import GoneError, LateError

T = TypeVar("T")


async def attended(request: Asking, story: Coroutine[Any, Any, T], seconds: float) -> T:
    """Tell a story to its end. Raises `GoneError` when the client left, `LateError` after `seconds`.

    The body must have been read: what the connection says next can only be that it is closed.
    """
    telling = asyncio.create_task(story)
    leaving = asyncio.create_task(_left(request))
    try:
        done, _ = await asyncio.wait({telling, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if telling in done:
            return telling.result()
        raise (
            GoneError("the client went away")
            if leaving in done
            else LateError(f"no answer was ready within {seconds:g} s", hint="ask again, or for less at a time")
        )
    finally:
        for task in (telling, leaving):
            task.cancel()
        await asyncio.gather(telling, leaving, return_exceptions=True)


async def _left(request: Asking) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
