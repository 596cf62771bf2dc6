"""OpenAILikeGenerator: any OpenAI-compatible endpoint in a permitted Zone, through llama-index's OpenAILike.

Rules kept here: the endpoint is always named (left alone the library would ask its vendor's); the key too; its HTTP
goes through `outlets/connect.py`; no retries of its own, no tokenizer by name (it would be fetched). What a library or
an endpoint says of a failure may quote the prompt, so none of it is kept: a `SiteError` names the kind of failure
alone.
"""

import asyncio
import secrets
import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

from residency.errors import SiteError
from residency.outlets.connect import checked, connect, connect_blocking
from residency.outlets.passing import passing
from residency.outlets.tls import explain
from residency.ports import Prompt
from residency.route import Action, Route

WITHIN: Final = 180.0
"""Seconds for a whole reply."""
MOST: Final = 50_000
"""Code points of a reply; an endpoint that says more than it was asked for is cut off."""
MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a reply with what it is wrapped in: a line that never ends holds no code point to count."""
_AHEAD: Final = 64
"""Pieces read ahead of whoever listens; then the endpoint has to wait."""


class OpenAILikeGenerator:
    """A `Generator` at a remote Site. `key` may be empty for an endpoint that asks for none."""

    def __init__(
        self,
        site: str,
        url: str,
        model: str,
        key: str = "",
        context: ssl.SSLContext | None = None,
        *,
        within: float = WITHIN,
        most_tokens: int = 1_024,
    ) -> None:
        """Nothing is sent yet; llama-index is imported here (about a second). `within` is in seconds."""
        from llama_index.llms.openai_like import OpenAILike

        self.site, self.model = site, model
        self._within = within
        self._peer = "local"
        self._http = connect(context, read=within, met=self._meet, most=MOST_BYTES, site=site)
        self._blocking = connect_blocking(context)
        make: Any = OpenAILike  # its http clients stand in no signature
        self._llm = make(
            model=model,
            api_base=checked(url, site=site),
            api_key=key or "none",
            http_client=self._blocking,
            async_http_client=self._http,
            max_retries=0,
            timeout=within,
            tokenizer=None,
            is_chat_model=True,
            is_function_calling_model=False,
            temperature=0.0,
            max_tokens=most_tokens,
        )

    def _meet(self, peer: str) -> None:
        self._peer = peer

    async def generate(self, route: Route, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Stream the text of the reply (Action generate). Raises `SiteError` when the endpoint fails or is too slow.

        A listener that goes away ends the call at the endpoint.
        """
        # a deadline must not fire inside whoever listens, so the endpoint is read in a task of its own
        pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue(_AHEAD)
        reading = asyncio.create_task(self._read(route, prompt, pieces))
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _read(self, route: Route, prompt: Prompt, pieces: "asyncio.Queue[str | Exception | None]") -> None:
        """Put the pieces of the reply, then None; or the failure."""
        try:
            await self._ask(route, prompt, pieces)
        except Exception as error:
            await pieces.put(error)
        else:
            await pieces.put(None)

    async def _ask(self, route: Route, prompt: Prompt, pieces: "asyncio.Queue[str | Exception | None]") -> None:
        from llama_index.core.llms import ChatMessage, MessageRole

        messages = [
            ChatMessage(role=MessageRole.SYSTEM, content=prompt.system),
            ChatMessage(role=MessageRole.USER, content=prompt.user),
        ]
        place = passing(route, site=self.site, action=Action.GENERATE, kind="generator", within=self._within, count=1)
        async with place as touch:
            touch.bytes = len(prompt.system.encode()) + len(prompt.user.encode())
            touch.request = secrets.token_hex(16)
            try:
                reply = await self._llm.astream_chat(messages, extra_headers={"x-request-id": touch.request})
                said = 0
                async for part in reply:
                    touch.peer = self._peer
                    if part.delta:
                        said += len(part.delta)
                        if said > MOST:
                            raise SiteError(f"the generator at {self.site} says too much", site=self.site)
                        await pieces.put(part.delta)
            except SiteError:
                raise
            except Exception as error:
                # whatever was raised may quote the prompt: keep its kind alone
                cause, remedy = explain(error) or (f"failed: {type(error).__name__}", "try again later; see doctor")
                raise SiteError(f"the generator at {self.site} {cause}", site=self.site, hint=remedy) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        self._blocking.close()
