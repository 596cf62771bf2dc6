"""A served home of one Site with a generator, and the double that stands there, on a loop of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.doubles.homes import home, settings
from tests.doubles.openai_http import OpenAIEndpoint
from tests.doubles.serving import Served, serving

FLEET = """
[[site]]
id = "de"
zone = "DE"
operator = {{ name = "Example Works", zone = "DE" }}
evidence = [{{ grade = 1, claim = "place", source = "test", date = 2026-01-01 }}]
holds = [
  {{ kind = "shard", url = "edge:" }}, {{ kind = "vault", url = "folder:" }}, {{ kind = "keys", url = "file:" }},
  {{ kind = "embedder", url = "bundled:" }}, {{ kind = "generator", url = "{url}", model = "m" }},
]
"""


class Writer:
    """The generator: its endpoint is told how to behave between two questions."""

    def __init__(self) -> None:
        self.end = OpenAIEndpoint()
        self._loop = asyncio.new_event_loop()

    def do(self, story: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the endpoint's own loop."""
        return asyncio.run_coroutine_threadsafe(story, self._loop).result(30)

    def behave(self, **how: Any) -> None:
        """Behave like this from now on, and otherwise well; what was asked before is forgotten."""
        plain = OpenAIEndpoint()
        for each in fields(OpenAIEndpoint):
            if each.name not in ("url", "place", "tls", "connections", "bytes_read"):
                setattr(self.end, each.name, how.get(each.name, getattr(plain, each.name)))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen until the end of the block."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        self.do(self.end.__aenter__())
        try:
            yield
        finally:
            self.do(self.end.__aexit__())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
            self._loop.close()


@contextmanager
def generating(folder: Path, onnx: Path, **changes: str) -> Iterator[tuple[Served, Writer]]:
    """Serve such a home until the end of the block; `changes` are settings."""
    writer = Writer()
    with writer.running():
        place = home(folder, onnx, fleet=None)
        (place / "fleet.toml").write_text(FLEET.format(url=writer.end.url), encoding="utf-8")
        with serving(settings(place, **changes)) as served:
            yield served, writer
