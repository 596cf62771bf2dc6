"""crash_point: a named place in the story of a Document where the chaos tests let the process die.

In service it does nothing. `tests/chaos/test_crash_points.py` sets `hook` in a child process.
"""

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def crash_point(name: str) -> None:
    """Pass a named place; does nothing unless a test has set `hook`."""
    if hook is not None:
        hook(name)
