"""Limits: a bucket empties, fills evenly, and says when to come again."""

import pytest

from service.errors import LimitError
from service.limits import Limits, headers
from service.problems import of_error


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_a_minutes_calls_and_fills_evenly() -> None:
    clock = Clock()
    limits = Limits(6, clock=clock)
    left = [allowance.left for _ in range(6) if (allowance := limits.take("key:a"))]
    assert left == [5, 4, 3, 2, 1, 0]
    with pytest.raises(LimitError) as caught:
        limits.take("key:a")
    assert 9.9 < caught.value.retry_after <= 10
    clock.now += 10
    assert limits.take("key:a")
    with pytest.raises(LimitError):
        limits.take("key:a")
    clock.now += 3600
    allowance = limits.take("key:a")
    assert allowance is not None
    assert allowance.left == 5


def test_keys_do_not_count_for_each_other() -> None:
    limits = Limits(1, clock=Clock())
    limits.take("key:a")
    limits.take("key:b")
    with pytest.raises(LimitError):
        limits.take("key:a")


def test_no_limit_lets_everything_through() -> None:
    limits = Limits(0)
    assert [limits.take("key:a") for _ in range(100)] == [None] * 100


def test_the_problem_says_when_to_come_again() -> None:
    made = of_error(LimitError("too often", retry_after=9.2, limit=6, window_s=60))
    assert (made.status, made.headers["Retry-After"], made.body["limit"], made.body["window_s"]) == (429, "10", 6, 60)
    assert made.headers.items() >= headers(6, 0, 9.2).items()
    assert made.headers["RateLimit-Policy"] == '"key";q=6;w=60'
