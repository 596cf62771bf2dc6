import copy
import pickle
import time

import pytest

from residency.decision import Permit
from residency.errors import RouteError
from residency.route import LIFETIME, MINT, Action, Route
from tests.doubles.rules import ask, engine


def route() -> Route:
    decision = engine().decide(ask())
    assert isinstance(decision, Permit)
    return decision.route


def minted(*, good_until: float) -> Route:
    return Route(
        MINT,
        action=Action.SEARCH,
        site="par",
        tenant="shop",
        principal="shop",
        tags=frozenset(),
        policies=(),
        good_until=good_until,
    )


@pytest.mark.parametrize("forged", [None, object(), "MINT", type(MINT)()])
def test_a_route_cannot_be_made_without_the_mint(forged: object) -> None:
    with pytest.raises(RouteError):
        Route(
            forged,  # type: ignore[arg-type]
            action=Action.SEARCH,
            site="par",
            tenant="shop",
            principal="shop",
            tags=frozenset(),
            policies=(),
            good_until=1e12,
        )


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_route_is_neither_copied_nor_pickled(way) -> None:
    with pytest.raises(RouteError):
        way(route())


def test_a_route_has_no_subclass() -> None:
    with pytest.raises(RouteError):
        type("Wider", (Route,), {})


@pytest.mark.parametrize("field", ["site", "action", "good_until", "tags", "anything"])
def test_a_route_does_not_change(field: str) -> None:
    made = route()
    with pytest.raises(RouteError):
        setattr(made, field, "iad")
    with pytest.raises(RouteError):
        delattr(made, field)


def test_a_route_is_good_for_its_action_at_its_site_alone() -> None:
    made = route()
    made.check(site="par", action=Action.SEARCH)
    with pytest.raises(RouteError):
        made.check(site="fra", action=Action.SEARCH)
    with pytest.raises(RouteError):
        made.check(site="par", action=Action.EMBED)


def test_a_route_lives_a_minute_whatever_is_asked_for() -> None:
    assert minted(good_until=1e12).good_until <= time.monotonic() + LIFETIME


def test_an_expired_route_is_refused() -> None:
    with pytest.raises(RouteError, match="expired"):
        minted(good_until=time.monotonic()).check(site="par", action=Action.SEARCH)


def test_what_a_route_shows_of_itself_is_no_content() -> None:
    assert repr(route()) == "<Route search at par for shop>"
