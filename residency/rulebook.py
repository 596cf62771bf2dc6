"""Rulebook: a folder of rules as plain files: what is in force, what is offered, the table of Zones, the worked cases.

Rules kept here: every `*.cedar` beside the schema is in force; of `sets/` only those that `sets.toml` uses; a set that
is copied beside the schema gives the same rules and the same digest as one that is used. Names are plain, so that a
Rulebook from outside can be written to disk. The files are read here and judged nowhere: see `policy.py`, `lint.py`.
"""

import difflib
import hashlib
import json
import re
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from residency import tagrules
from residency.errors import PolicyError
from residency.tagrules import TagRules
from residency.zones import Zones

SCHEMA: Final = "schema.cedarschema"
ZONES: Final = "zones.toml"
SETS: Final = "sets.toml"
RETENTION: Final = "retention.toml"
MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes that all files of one Rulebook may have together."""
_NAME: Final = re.compile(
    r"(schema\.cedarschema|zones\.toml|sets\.toml|retention\.toml|tagging\.toml|README\.md|(sets/)?[a-z0-9][a-z0-9-]*\.cedar|cases/[a-z0-9][a-z0-9-]*\.toml)"
)


@dataclass(frozen=True)
class Rulebook:
    """The files of one policies folder: path inside it (`sets/health.cedar`) to bytes."""

    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if stray := next((name for name in self.files if not _NAME.fullmatch(name)), None):
            shown = stray if len(stray) <= 40 and stray.isascii() and stray.isprintable() else "a name"
            raise PolicyError(
                f"{shown!r} is no file of a policies folder",
                hint="name rules like own-rules.cedar, cases like cases/own.toml",
            )
        if sum(len(raw) for raw in self.files.values()) > MOST_BYTES:
            raise PolicyError("the policies folder is larger than 4 MiB", hint="keep tenants' facts in their ceilings")

    @classmethod
    def read(cls, folder: Path) -> "Rulebook":
        """Read a policies folder. Raises `PolicyError` when it is not there or holds no rules."""
        found: dict[str, bytes] = {}
        try:
            for pattern in (
                "*.cedar",
                SCHEMA,
                ZONES,
                SETS,
                RETENTION,
                tagrules.FILE,
                "README.md",
                "sets/*.cedar",
                "cases/*.toml",
            ):
                for path in folder.glob(pattern):
                    found[path.relative_to(folder).as_posix()] = path.read_bytes()
        except OSError as error:
            raise PolicyError("the policies folder cannot be read", hint="check its path and rights") from error
        if not found:
            raise PolicyError(
                f"{folder.name} holds no rules", hint=f"a policies folder has {SCHEMA}, {ZONES} and *.cedar files"
            )
        return cls(found)

    def write(self, folder: Path) -> None:
        """Write the files into a new folder; whole or not at all, so that nobody reads half a set."""
        half = folder.with_name(f".{folder.name}.half")
        for name, raw in self.files.items():
            path = half / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        half.rename(folder)

    @property
    def digest(self) -> str:
        """SHA-256 over every file, as `digest` gives it: names the whole, offered sets and cases included."""
        return digest(self.files)

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the ready-made sets that `sets.toml` switches on."""
        try:
            table = tomllib.loads(self.files.get(SETS, b"").decode())
        except ValueError as error:
            raise PolicyError(f"{SETS} is no TOML: {error}", hint='write use = ["eu-only"]') from error
        names = table.get("use", [])
        if table.keys() - {"use"} or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise PolicyError(f"{SETS} holds one line, use = [names]", hint='write use = ["eu-only", "health"]')
        return tuple(names)

    @property
    def offered(self) -> tuple[str, ...]:
        """Names of all ready-made sets of the folder."""
        return tuple(sorted(Path(name).stem for name in self.files if name.startswith("sets/")))

    def rules(self, sets: Iterable[str] | None = None) -> dict[str, bytes]:
        """Give what is in force: the schema, the rules beside it, and the sets in use (or those named), by file name.

        Raises `PolicyError` for a set that is not there, or whose name a file beside the schema has too.
        """
        chosen = {
            name: raw for name, raw in self.files.items() if "/" not in name and name.endswith((".cedar", SCHEMA))
        }
        for name in self.used if sets is None else sets:
            if (raw := self.files.get(f"sets/{name}.cedar")) is None:
                near = difflib.get_close_matches(name, self.offered, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(self.offered) or 'none'}"
                raise PolicyError(f"{SETS} uses {name[:40]!r}, which is no set of the folder", hint=hint)
            if chosen.setdefault(f"{name}.cedar", raw) != raw:
                raise PolicyError(
                    f"{name}.cedar stands in the folder and under sets/, and they differ", hint="rename your own file"
                )
        return chosen

    def zones(self, on: datetime | None = None) -> Zones:
        """Build the table of Zones as it stands on `on` (default: now)."""
        if ZONES not in self.files:
            raise PolicyError(f"{ZONES} is missing", hint="restore the shipped file")
        return Zones.parse(self.files[ZONES], on=on)

    def tagging(self, zones: Zones) -> TagRules:
        """Give the rules by which Tags follow from words and folders; none where the folder has no such file."""
        return TagRules.parse(self.files.get(tagrules.FILE, b""), zones)

    def packed(self) -> str:
        """Give the files as one JSON text."""
        return json.dumps({name: b64encode(raw).decode() for name, raw in sorted(self.files.items())})

    @classmethod
    def unpacked(cls, text: str) -> "Rulebook":
        """Read back what `packed` gave."""
        try:
            return cls({name: b64decode(raw, validate=True) for name, raw in json.loads(text).items()})
        except (ValueError, AttributeError, TypeError) as error:
            raise PolicyError("a stored policy set is damaged", hint="activate it anew from its folder") from error


def digest(files: Mapping[str, bytes]) -> str:
    """Give `sha256:…` over the sorted files: name, 0x00, length as 8 bytes big-endian, bytes."""
    hashed = hashlib.sha256()
    for name, raw in sorted(files.items()):
        hashed.update(name.encode() + b"\0" + len(raw).to_bytes(8, "big") + raw)
    return "sha256:" + hashed.hexdigest()
