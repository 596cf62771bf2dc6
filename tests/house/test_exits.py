"""Ways out: files are written, processes started and sockets opened in the listed files alone (invariants 1 and 16)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("residency", "ingestion", "service")
FILES = [str(path.relative_to(ROOT)) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]

WRITERS = {
    "residency/egress.py": "the maps of a child's own namespace, in /proc",
    "residency/logkey.py": "the Ledger's key and mirror",
    "residency/silence.py": "an empty cache folder in the home",
    "residency/rulebook.py": "a copy of rules, which hold no data",
    "residency/witness.py": "what a witness signed last",
    "residency/outlets/keys/disk.py": "wrapped keys, whole or not at all",
    "residency/outlets/keys/roots.py": "a new root key",
    "residency/outlets/vaults/folder.py": "sealed originals and texts",
    "residency/outlets/shards/edge_host.py": "the shard's lock",
    "residency/outlets/shards/edge_store.py": "the shard's own folder and manifest",
    "residency/outlets/embedders/onnx_export.py": "the exported model, which holds no document",
    "ingestion/archive.py": "a backup: sealed bytes and wrapped keys, where a person asked to have it",
    "ingestion/manifest.py": "keyed hashes of what a folder held",
    "service/airgap.py": "a throwaway home in memory, with a text of our own",
    "service/home.py": "a new home: settings and service key",
    "service/certifying.py": "certificates and their keys",
    "service/homelock.py": "who holds the home",
    "service/rulestore.py": "rules put in force",
    "service/cli/evaluation.py": "figures of an evaluation: ids and numbers",
    "service/cli/evidence.py": "reports and receipts that a person asked to have as files",
    "service/cli/ledger.py": "checkpoints and signatures that a person asked to have as files",
    "service/cli/run.py": "the fleet file that a person handed in",
}
STARTERS = {
    "residency/egress.py": "a child that tries whether namespaces are given",
    "service/airgap.py": "the rehearsal without a network",
    "ingestion/sandbox.py": "the readers' nursery",
    "ingestion/readers/main.py": "the nursery's confined child for each file",
    "residency/outlets/shards/edge_child.py": "the shard's child",
}
OPENERS = {
    "residency/egress.py": "the tripwire watches sockets",
    "residency/outlets/connect.py": "the one HTTP client factory",
    "residency/outlets/keys/bao_line.py": "a key server, through the session of its own client",
    "residency/outlets/tls.py": "what certificate a Site shows",
}

OS_WRITING = {"mkdir", "makedirs", "remove", "unlink", "rename", "replace", "pwrite", "write", "link", "symlink"}
OS_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"}
SHUTIL_WRITING = {
    "copy",
    "copy2",
    "copyfile",
    "copyfileobj",
    "copytree",
    "move",
    "rmtree",
    "make_archive",
    "unpack_archive",
}
STARTING = {"subprocess", "multiprocessing"}
OPENING = {"socket", "httpx", "requests", "urllib3", "aiohttp"}
PIPES = {"multiprocessing.connection", "multiprocessing.reduction"}
"""Modules that hand pipes over and start nothing."""


def _mode(node: ast.Call) -> str:
    """Give the mode of an open(): a short text constant among its arguments, or reading."""
    given = [
        *node.args[isinstance(node.func, ast.Name) :],
        *(word.value for word in node.keywords if word.arg == "mode"),
    ]
    return next(
        (
            each.value
            for each in given
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and len(each.value) < 5
        ),
        "r",
    )


def _attributes(node: ast.AST) -> set[str]:
    return {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def exits(text: str) -> Iterator[str]:
    """Name each way out that the code of a file takes: `write`, `start`, `open`, `spool`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id="open")) if set(_mode(node)) & set("wax+"):
                yield "write"
            case ast.Call(func=ast.Attribute(attr="open", value=value)) if not (
                isinstance(value, ast.Name) and value.id == "os"
            ):
                if set(_mode(node)) & set("wax+") and set(_mode(node)) <= set("rwaxb+t"):
                    yield "write"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="open")) if OS_FLAGS & _attributes(node):
                yield "write"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=name)) if name in OS_WRITING:
                yield "write"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="shutil"), attr=name)) if name in SHUTIL_WRITING:
                yield "write"
            case ast.Call(func=ast.Attribute(attr="write_text" | "write_bytes"), args=[_]):  # a Path's take one
                yield "write"
            case ast.Call(func=ast.Attribute(attr="touch" | "symlink_to" | "hardlink_to")):
                yield "write"
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                roots = {(module or alias.name).partition(".")[0] for alias in names if module not in PIPES}
                if roots & STARTING:
                    yield "start"
                if roots & OPENING:
                    yield "open"
                if "tempfile" in roots:
                    yield "spool"
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="os"), attr="fork" | "system" | "popen" | "posix_spawn")
            ):
                yield "start"
            case ast.Call(func=ast.Attribute(attr="create_subprocess_exec" | "create_subprocess_shell")):
                yield "start"
            case ast.Call(func=ast.Attribute(attr="open_connection" | "create_connection" | "start_server")):
                yield "open"
            case ast.Name(id="UploadFile" | "SpooledTemporaryFile" | "NamedTemporaryFile"):
                yield "spool"


@pytest.mark.parametrize("file", FILES)
def test_a_file_takes_only_the_ways_out_that_it_is_listed_for(file: str) -> None:
    listed = {"write": WRITERS, "start": STARTERS, "open": OPENERS}
    taken = set(exits((ROOT / file).read_text(encoding="utf-8")))
    assert {way for way in taken if file not in listed.get(way, {})} == set()


@pytest.mark.parametrize(("way", "listed"), [("write", WRITERS), ("start", STARTERS), ("open", OPENERS)])
def test_a_listing_that_is_no_longer_needed_goes(way: str, listed: dict[str, str]) -> None:
    idle = [file for file in listed if way not in set(exits((ROOT / file).read_text(encoding="utf-8")))]
    assert idle == []


@pytest.mark.parametrize(
    ("planted", "way"),
    [
        ("open('x', 'w')", "write"),
        ("open('x', mode='ab')", "write"),
        ("from pathlib import Path\nPath('x').write_text('y')", "write"),
        ("path.open('wb')", "write"),
        ("import os\nos.open('x', os.O_WRONLY)", "write"),
        ("import shutil\nshutil.copyfile('a', 'b')", "write"),
        ("import subprocess", "start"),
        ("from multiprocessing import Process", "start"),
        ("import os\nos.system('x')", "start"),
        ("asyncio.create_subprocess_exec('x')", "start"),
        ("import socket", "open"),
        ("from httpx import get", "open"),
        ("asyncio.open_connection('h', 1)", "open"),
        ("import tempfile", "spool"),
        ("x: UploadFile", "spool"),
    ],
)
def test_a_planted_way_out_is_found(planted: str, way: str) -> None:
    assert way in set(exits(planted))


@pytest.mark.parametrize(
    "harmless", ["open('f.txt')", "open('f.txt', 'rb')", "path.open()", "sealer.open(1, 'id', 's')"]
)
def test_reading_and_opening_envelopes_is_no_way_out(harmless: str) -> None:
    assert list(exits(harmless)) == []
