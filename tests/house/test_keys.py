"""Who may hold an open key, and who may choose a nonce."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("service", "ingestion", "residency")


def _names(tree: ast.AST) -> Iterator[str]:
    for each in ast.walk(tree):
        if isinstance(each, ast.Call):
            called = each.func
            if isinstance(called, ast.Name):
                yield f"{called.id}()"
            if isinstance(called, ast.Attribute):
                yield f"{called.attr}()"
                if isinstance(called.value, ast.Name):
                    yield f"{called.value.id}.{called.attr}()"
        if isinstance(each, ast.Attribute):
            yield each.attr


def _users(name: str) -> set[str]:
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {str(path.relative_to(ROOT)) for path in files if name in _names(ast.parse(path.read_text()))}


def test_an_open_key_is_built_by_the_keyring_alone() -> None:
    assert _users("OpenDek()") == {"residency/keyring.py", "residency/keysets.py"}  # one opens DEKs, one search keys
    assert _users("OpenDek.proven()") == {"residency/keyring.py"}


def test_nobody_chooses_a_nonce() -> None:
    assert _users("_seal_raw") == {"residency/seal.py"}


def test_key_providers_are_spoken_to_by_the_keyring_alone() -> None:
    passed_on = "residency/outlets/keys/late.py"  # a provider itself
    callers = _users("unwrap()") - {"residency/keks.py", "residency/keyring.py", "residency/keysets.py", passed_on}
    assert not callers


def test_the_check_sees_a_planted_builder() -> None:
    planted = ast.parse("def f(c, k):\n    return OpenDek(c, k), OpenDek.proven(c, k), s._seal_raw(k)")
    assert {"OpenDek()", "OpenDek.proven()", "_seal_raw"} <= set(_names(planted))
