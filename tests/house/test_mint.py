"""A Route is minted in one place: of all code that ships, `Route(` and `MINT` appear in engine.py and route.py."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("residency", "ingestion", "service")
MAY = {"residency/engine.py", "residency/route.py"}
FILES = [str(path.relative_to(ROOT)) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def mints(text: str) -> Iterator[int]:
    """Give the lines that make a Route, name the mint, or reach either by a string."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id="Route") | ast.Attribute(attr="Route")):
                yield node.lineno
            case ast.Name(id="MINT" | "_Mint") | ast.Attribute(attr="MINT" | "_Mint"):
                yield node.lineno
            case ast.ImportFrom(names=names) if any(alias.name in {"MINT", "_Mint"} for alias in names):
                yield node.lineno
            case ast.Constant(value="MINT" | "_Mint"):
                yield node.lineno
            case ast.Call(func=ast.Attribute(attr="__new__"), args=[ast.Name(id="Route"), *_]):
                yield node.lineno


@pytest.mark.parametrize("file", [file for file in FILES if file not in MAY])
def test_no_other_file_mints_a_route(file: str) -> None:
    assert list(mints((ROOT / file).read_text())) == []


def test_the_engine_mints_in_one_place() -> None:
    tree = ast.parse((ROOT / "residency/engine.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Route"]
    assert len(calls) == 1
    decide = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "decide")
    assert calls[0] in set(ast.walk(decide))


@pytest.mark.parametrize(
    "planted",
    [
        "from residency.route import MINT",
        "from residency.route import MINT as spare",
        "from residency import route\nspare = route.MINT",
        "from residency import route\nroute.Route(None)",
        "spare = Route(mint, site='par')",
        "getattr(route, 'MINT')",
        "object.__new__(Route)",
    ],
)
def test_a_planted_mint_is_found(planted: str) -> None:
    assert list(mints(planted))


def test_the_house_was_looked_at() -> None:
    assert set(FILES) >= MAY
