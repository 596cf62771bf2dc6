"""What the documentation says is there, and what is there is said: files, verbs, codes, settings, policies, links."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rich_click as click

from residency.policy import PolicySet
from residency.rulebook import Rulebook
from residency.zones import Zones
from service import settings
from service.cli import VERBS
from service.problems import STATUS

ROOT = Path(__file__).parents[2]
ROOMS = ("residency", "ingestion", "service")
DOCS = ROOT / "docs"
APART = {".venv", ".git", ".cache", "demo-out", ".domicile", "node_modules", "build", "dist", "shared"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shipped() -> set[str]:
    """Give every Python file of the three rooms."""
    return {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")}


def pages() -> list[Path]:
    """Give every Markdown file of the repository."""
    return [path for path in sorted(ROOT.rglob("*.md")) if not APART & set(path.relative_to(ROOT).parts)]


def headings(text: str) -> list[str]:
    """Give the titles of a page, outside of its code."""
    return re.findall(r"^#{1,6}\s+(.*?)\s*$", FENCE.sub("", text), re.MULTILINE)


def anchor(title: str) -> str:
    """Spell a title as the fragment that links to it."""
    plain = re.sub(r"[`*]", "", title).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def rows(text: str) -> set[str]:
    """Give the first cells of a page's tables that are one code word."""
    return set(re.findall(r"^\|\s*`([^`]+)`\s*\|", text, re.MULTILINE))


# --- the code map -----------------------------------------------------------------------------------------------------


def test_every_shipped_file_stands_in_the_code_map_and_nothing_else() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    mapped = {name for name in rows(text) if name.endswith(".py")}
    assert mapped == shipped()


def test_every_file_that_the_architecture_names_exists() -> None:
    named = set(
        re.findall(r"`((?:tests|residency|ingestion|service|policies|docs)/[\w./-]*)`", text := _architecture())
    )
    assert len(named) > 100
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    assert "tests/house/test_docs.py" in text


def test_inside_the_engine_a_file_imports_from_the_groups_before_its_own() -> None:
    line = next(each for each in _architecture().splitlines() if each.startswith("- Inside `residency/`"))
    groups = [found.split() for found in re.findall(r"`([a-z ]+)`", line)]
    place = {name: at for at, names in enumerate(groups) for name in names}
    files = {path.stem: path for path in (ROOT / "residency").glob("*.py") if path.stem != "__init__"}
    assert place.keys() == files.keys()
    wrong = [
        f"{name} imports {other}"
        for name, path in files.items()
        for other in _imported(path, "residency")
        if other in place and place[other] >= place[name]
    ]
    assert wrong == []


def test_only_the_composition_root_opens_the_corridor() -> None:
    found = {
        name
        for name in shipped()
        if not name.startswith("residency/outlets/") and "outlets" in _imported(ROOT / name, "residency")
    }
    assert found == {"service/bootstrap.py", "service/outfitting.py"}


def _architecture() -> str:
    return (ROOT / "ARCHITECTURE.md").read_text()


def _imported(path: Path, room: str) -> set[str]:
    """Name the modules of a room that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == room:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{room}."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith(f"{room}.")}
    return found


# --- what people type and read ----------------------------------------------------------------------------------------


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Give every verb of the command line, `policy check` as well as `serve`."""
    for name, (module, _) in VERBS.items():
        command: click.Command = getattr(__import__(module, fromlist=[name]), name)
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield name, command
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        else:
            yield name, command


COMMANDS = dict(verbs())


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_verb_has_its_row_in_the_operations_page(verb: str) -> None:
    assert verb in {name.removeprefix("domicile ") for name in rows((DOCS / "operations.md").read_text())}


def test_the_operations_page_names_no_verb_that_is_not_there() -> None:
    told = {
        name.removeprefix("domicile ") for name in rows((DOCS / "operations.md").read_text()) if "domicile " in name
    }
    assert told == set(COMMANDS)


def commands_in(text: str) -> Iterator[list[str]]:
    """Give the words of each `domicile …` line in a page's shell blocks; comments and prompts are cut off."""
    for language, block in FENCE.findall(text):
        if language not in {"sh", "bash", "console", ""}:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|[\s(;|&])domicile ((?:[a-z]+)(?: [^|;)#\n]*)?)", line):
                yield call.split()


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_page_is_a_verb_with_these_options(page: Path) -> None:
    for words in commands_in(page.read_text()):
        name = words[0] if words[0] in COMMANDS else " ".join(words[:2])
        assert name in COMMANDS, f"{page.name}: domicile {' '.join(words)}"
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts + parameter.secondary_opts}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, f"{page.name}: domicile {' '.join(words)}"


def test_commands_are_found_at_all() -> None:
    assert ["init", "--zone", "DE"] in list(commands_in((ROOT / "README.md").read_text()))
    assert list(commands_in("```sh\ndomicile nonsense --x\n```")) == [["nonsense", "--x"]]


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_verb_in_a_page_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    shell = "\n".join(block for language, block in FENCE.findall(text) if language in {"sh", "bash", "console", ""})
    used = set(re.findall(r"^make ([a-z]+)", shell, re.MULTILINE)) | set(re.findall(r"`make ([a-z]+)", text))
    assert used <= targets, f"{page.name}: {sorted(used - targets)}"


def codes() -> set[str]:
    """Give the code of every error class of the three rooms, and of every problem."""
    found = set(STATUS)
    for name in shipped():
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                found |= {
                    str(item.value.value)
                    for item in node.body
                    if isinstance(item, ast.Assign)
                    and isinstance(item.value, ast.Constant)
                    and [getattr(target, "id", "") for target in item.targets] == ["code"]
                }
    return found


def test_every_problem_code_has_its_heading_in_the_api_page() -> None:
    titles = [title.strip("`") for title in headings((DOCS / "api.md").read_text())]
    assert sorted(set(STATUS) - set(titles)) == []


def test_every_problem_stands_with_its_status() -> None:
    text = (DOCS / "api.md").read_text()
    for code, (status, title) in STATUS.items():
        section = text.partition(f"\n### `{code}`\n")[2].partition("\n#")[0]
        assert f"{status} · {title}" in section, code


def test_every_code_of_an_error_is_told_somewhere() -> None:
    told = set(re.findall(r"`([a-z_]+)`", (DOCS / "api.md").read_text() + (DOCS / "operations.md").read_text()))
    assert sorted(codes() - told) == []


def test_every_route_of_the_api_is_told_and_no_other() -> None:
    from service.app import create_app

    paths: dict[str, Any] = create_app(settings.Settings()).openapi_schema.to_schema()["paths"]
    served = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if not path.startswith("/api")
    }
    told = {re.sub(r"\?.*", "", name) for name in rows((DOCS / "api.md").read_text()) if re.match(r"[A-Z]+ /", name)}
    assert told == served | {"GET /metrics"}


def test_every_metric_of_ours_has_its_row() -> None:
    made: set[str] = set()
    for name in shipped():
        text = (ROOT / name).read_text()
        if "prometheus_client" in text:
            made |= set(re.findall(r"\b(?:Counter|Gauge|Histogram|Summary)\(\s*\"(\w+)\"", text))
    assert made == {name for name in rows((DOCS / "operations.md").read_text()) if name.startswith("domicile_")}


def test_every_policy_has_its_heading() -> None:
    folder = ROOT / "policies"
    shipped_set = PolicySet.load(folder, Zones.load(folder / "zones.toml"))
    text = (DOCS / "policies.md").read_text()
    titles = {title.strip("`") for title in headings(text)}
    for clause in shipped_set.clauses.values():
        assert clause.id in titles
        section = text.partition(f"\n### `{clause.id}`\n")[2].partition("\n#")[0]
        assert clause.explain.lower() in section.lower()
        assert clause.law in section


def test_every_clause_of_a_ready_made_set_has_its_row() -> None:
    rulebook = Rulebook.read(ROOT / "policies")
    text = (DOCS / "policies.md").read_text()
    for name in rulebook.offered:
        for clause in PolicySet(rulebook.rules([name]), rulebook.zones()).clauses.values():
            told = (
                f"\n### `{clause.id}`\n" in text
                or f"| `{name}` | `{clause.id}` | {clause.explain} | {clause.law} |" in text
            )
            assert told, clause.id


def test_every_finding_of_the_doctor_has_its_row() -> None:
    text = (ROOT / "service/doctor.py").read_text()
    made = set(re.findall(r"Finding\(\s*\"([a-z-]+)\"", text))
    assert made
    assert sorted(made - rows((DOCS / "operations.md").read_text())) == []


# --- settings ---------------------------------------------------------------------------------------------------------


def test_every_setting_has_its_row_with_its_default() -> None:
    text = (DOCS / "settings.md").read_text()
    told = {name: line for line in text.splitlines() for name in re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", line)}
    described = dict(settings.describe())
    assert told.keys() == described.keys()
    for name, default in described.items():
        assert f"`{_toml(default)}`" in told[name], f"{name}: default {_toml(default)}"


def test_the_example_file_holds_every_setting_at_its_default() -> None:
    raw = (ROOT / "domicile.example.toml").read_text()
    read = tomllib.loads(re.sub(r"^#(?! )", "", raw, flags=re.MULTILINE))
    told = {f"{section}.{key}": value for section, keys in read.items() for key, value in keys.items()}
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.describe()}
    assert told == wanted
    settings.parse(tomllib.loads(raw))


def test_every_setting_of_the_example_file_is_explained() -> None:
    lines = (ROOT / "domicile.example.toml").read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#?\w+ = ", line):
            assert "#" in line.partition("=")[2] or above.startswith("# "), line


def _toml(value: object) -> str:
    """Spell a default as TOML does."""
    return json.dumps(msgspec.to_builtins(value))


# --- links ------------------------------------------------------------------------------------------------------------


def links(text: str) -> list[str]:
    """Give the targets of a page's links, outside of its code."""
    plain = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return re.findall(r"\]\(([^)\s]+)\)", plain)


def broken(page: Path, target: str) -> bool:
    """Say whether a relative link leads nowhere."""
    if re.match(r"[a-z]+:", target):
        return False
    place, _, fragment = target.partition("#")
    file = (page.parent / place).resolve() if place else page
    if not file.exists():
        return True
    if not fragment or file.is_dir() or file.suffix != ".md":
        return False
    return fragment not in {anchor(title) for title in headings(file.read_text())}


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    assert [target for target in links(page.read_text()) if broken(page, target)] == []


def test_a_broken_link_is_found() -> None:
    page = DOCS / "index.md"
    assert broken(page, "nowhere.md")
    assert broken(page, "api.md#no-such-title")
    assert not broken(page, "../README.md")


def test_every_page_of_the_docs_can_be_reached_from_the_index() -> None:
    reached = {(DOCS / target.partition("#")[0]).resolve() for target in links((DOCS / "index.md").read_text())}
    reached |= {
        (DOCS / "decisions" / target.partition("#")[0]).resolve()
        for target in links((DOCS / "decisions/README.md").read_text())
    }
    assert sorted(str(page) for page in DOCS.rglob("*.md") if page.resolve() not in reached | {DOCS / "index.md"}) == []


# --- decision records -------------------------------------------------------------------------------------------------

PARTS = ["Context", "Decision", "Consequences", "Alternatives", "Held by", "Sources"]


@pytest.mark.parametrize("record", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda path: path.stem)
def test_a_decision_record_has_its_parts_and_names_files_that_exist(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {int(record.stem[:4])}. ")
    assert re.search(r"^\*Accepted, \d{4}-\d{2}-\d{2}\*$", text, re.MULTILINE)
    assert headings(text)[1:] == PARTS
    held = text.partition("## Held by")[2].partition("## Sources")[0]
    named = re.findall(r"`((?:tests|policies|residency|ingestion|service|docs|bench)/[\w./-]+)`", held)
    assert named, "a record names the test, or the file, that holds it"
    assert [
        name
        for name in re.findall(r"`((?:tests|residency|ingestion|service|policies)/[\w./-]+)`", text)
        if not (ROOT / name).exists()
    ] == []


def test_decision_records_are_numbered_without_gaps() -> None:
    numbers = [int(path.stem[:4]) for path in sorted((DOCS / "decisions").glob("0*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


# --- the map of the engine's own words --------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_what_it_is(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert [path.name for path in files if not ast.get_docstring(ast.parse(path.read_text()))] == []
