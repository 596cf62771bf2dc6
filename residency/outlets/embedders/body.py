"""What both embedders share: the pass, the limit on tokens, the model's prompts, and the lanes into its runner.

Rules kept here: a text longer than the model can read is refused and never cut in silence; vectors come back in the
order of the texts, float32, of unit length; counting tokens is local and needs no Route.
"""

import asyncio
import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, Self

from residency.errors import ModelError
from residency.outlets.embedders.batching import Lanes, Tokens
from residency.outlets.embedders.remembered import Remembered
from residency.outlets.models import VerifiedModel
from residency.outlets.passing import passing
from residency.ports import Vectors
from residency.route import Action, Route

WITHIN_QUESTION: Final = 30.0
WITHIN_PASSAGES: Final = 600.0
"""Seconds; ingestion waits for its turn rather than fail."""
INLINE: Final = 1_000
"""Bytes of text that are tokenised on the event loop."""


class Runner(Protocol):
    """A loaded model: text to token ids, token ids to unit vectors."""

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of each text, special tokens included, never cut."""
        ...

    def run(self, ids: Tokens, mask: Tokens) -> Vectors:
        """Give float32 (n, d), rows of unit length, for int64 ids and mask of shape (n, t)."""
        ...


class RunnerEmbedder:
    """An `Embedder` over any runner; `OnnxEmbedder` and `TorchEmbedder` say how the runner is made."""

    def __init__(self, model: VerifiedModel, runner: Runner, *, site: str, most_tokens: int) -> None:
        self.site = site
        self.digest = model.digest
        self.dimension = model.dimension
        self.max_tokens = model.max_tokens
        self._prompts = {question: model.prompt(question=question) for question in (False, True)}
        self._runner = runner
        self._remembered = Remembered()
        self._lanes = Lanes(runner.run, site=site, dimension=self.dimension, most_tokens=most_tokens)

    def at(self, site: str) -> Self:
        """Give the same loaded model as the embedder of another Site of this machine; Routes are checked for that one.

        Runner and lanes are shared: closing either closes both.
        """
        other = copy.copy(self)
        other.site = site
        return other

    async def embed(self, route: Route, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """Give float32 (n, d), rows of unit length, in the order of the texts (Action embed).

        Raises `ModelError` for a text beyond `max_tokens`, `SiteError` when too many questions wait.
        """
        within = WITHIN_QUESTION if question else WITHIN_PASSAGES
        place = passing(route, site=self.site, action=Action.EMBED, kind="embedder", within=within, count=len(texts))
        async with place as touch:
            touch.bytes = sum(len(text.encode()) for text in texts)
            key = self._remembered.key(route.tenant, self.site, texts[0]) if question and len(texts) == 1 else None
            if key is not None and (known := self._remembered.get(key)) is not None:
                return known
            # a question's tokens take 30 µs, less than a thread's waking
            if touch.bytes <= INLINE:
                ids = self._tokens(texts, question=question)
            else:
                ids = await asyncio.to_thread(self._tokens, texts, question=question)
            for number, text_ids in enumerate(ids):
                if len(text_ids) > self.max_tokens:
                    raise ModelError(
                        f"text {number} of {len(ids)} has {len(text_ids)} tokens, the model reads {self.max_tokens}",
                        hint="split it before embedding",
                    )
            vectors = await self._lanes.embed(ids, tenant=route.tenant, question=question)
            if key is not None:
                self._remembered.put(key, vectors)
            return vectors

    def _tokens(self, texts: Sequence[str], *, question: bool) -> list[list[int]]:
        if not texts:
            return []
        prompt = self._prompts[question]
        return self._runner.tokens([prompt + text for text in texts] if prompt else texts)

    def count_tokens(self, text: str) -> int:
        """Count tokens as the model does, special ones and its prompt for passages included; local."""
        return len(self._tokens([text], question=False)[0])

    def forget(self) -> None:
        """Forget the vectors of questions asked until now."""
        self._remembered.forget()

    async def aclose(self) -> None:
        """Finish the batch in hand and stop."""
        await asyncio.to_thread(self._lanes.close)


def physical_cores() -> int:
    """Count the physical cores this process may use: hyper-threads count once, a container's CPU quota holds."""
    allowed = os.sched_getaffinity(0)
    places = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            places.add(((topology / "physical_package_id").read_text(), (topology / "core_id").read_text()))
        except OSError:
            places.add((str(cpu), ""))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        share = int(quota) // int(period)
    except (OSError, ValueError):  # no cgroup v2, or "max"
        share = len(places)
    return max(1, min(len(places), share))
