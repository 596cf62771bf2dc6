"""Vectors of questions that were asked a moment ago: bounded, short-lived, in memory only.

Rules kept here: a question is known again by a keyed hash under a secret of this process, and its text is not kept;
whose it was is part of the key, so that no tenant learns by its speed what another asked. A vector is as good as its
text, so everything is forgotten when a key is shredded or rolled (`Keyring.empty`), and in any case after `SECONDS`.
"""

import hmac
import secrets
import time
from collections import OrderedDict
from typing import Final

from residency.ports import Vectors
from residency.seal import bind

MOST: Final = 4096
"""Vectors held at most: 6 MB at a width of 384."""
SECONDS: Final = 600.0


class Remembered:
    """The last questions' vectors; the least lately asked goes first. Lives on one event loop."""

    def __init__(self, *, most: int = MOST, seconds: float = SECONDS) -> None:
        self._secret = secrets.token_bytes(32)
        self._most, self._seconds = most, seconds
        self._held: OrderedDict[bytes, tuple[float, Vectors]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def key(self, tenant: str, site: str, text: str) -> bytes:
        """Give what a tenant's question at a Site is known by."""
        named = bind("domicile/v1/question", tenant, site)
        return hmac.digest(self._secret, named + text.encode(errors="surrogatepass"), "sha256")

    def get(self, key: bytes) -> Vectors | None:
        """Give the vectors of float32 (1, d) that were kept under a key, a copy."""
        made, vectors = self._held.get(key, (0.0, None))
        if vectors is None:
            return None
        if time.monotonic() - made > self._seconds:
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return vectors.copy()

    def put(self, key: bytes, vectors: Vectors) -> None:
        """Keep a question's vectors."""
        self._held[key] = time.monotonic(), vectors.copy()
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def forget(self) -> None:
        """Keep nothing of what was asked until now."""
        self._held.clear()
