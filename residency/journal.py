"""Journal: what one use-case touched, collected while it runs, so that its Receipt can name every Site.

`outlets/passing.py` writes a Touch for each pass through an outlet; use-cases open `recording()` around their story
and hand the result to `receipt.py`. A context variable carries it, so tasks and threads of the same story share it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from residency.route import Action


@dataclass(slots=True)
class Touch:
    """One pass through an outlet: which Action at which Site, by which policies, how many items and bytes."""

    action: Action
    site: str
    kind: str
    """shard, embedder, generator, keys or vault."""
    tags: frozenset[str]
    policies: tuple[str, ...]
    count: int = 0
    bytes: int = 0
    peer: str = "local"
    """`local`, or SHA-256 of the certificate that answered."""
    request: str = ""
    """The x-request-id sent, for reconciling with the Site's own log."""


_touches: ContextVar[list[Touch] | None] = ContextVar("touches", default=None)


@contextmanager
def recording() -> Iterator[list[Touch]]:
    """Collect every Touch made inside; nested recordings keep to themselves."""
    touches: list[Touch] = []
    token = _touches.set(touches)
    try:
        yield touches
    finally:
        _touches.reset(token)


def note(touch: Touch) -> None:
    """Add a Touch to the recording in force, if there is one."""
    touches = _touches.get()
    if touches is not None:
        touches.append(touch)
