"""byhand: `register.toml` in the home, what only people know of the processing: purposes, subjects, periods, measures.

Rules kept here: an unknown key is refused by name, so that a misspelt field is not silently missing from a register;
nothing of it is recorded in the Ledger but the digest of the report it went into.
"""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from service.errors import SettingsError


class Controller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is responsible (GDPR 30(1)(a), 30(2)(a))."""

    name: str = ""
    address: str = ""
    contact: str = ""
    representative: str = ""
    dpo: str = ""
    joint_controllers: tuple[str, ...] = ()


class ActivityText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the register in the organisation's own words."""

    role: str = ""
    """`controller` or `processor`; empty: as the organisation acts."""
    purposes: str = ""
    legal_basis: str = ""
    subjects: tuple[str, ...] = ()
    """Categories of people."""
    data: tuple[str, ...] = ()
    """Categories of personal data."""
    other_recipients: tuple[str, ...] = ()
    """Recipients that no Site is: departments, authorities, partners."""
    safeguards: str = ""
    """Of transfers to third countries (GDPR 49(1) second subparagraph)."""
    retention: str = ""
    controllers: tuple[str, ...] = ()
    """For whom it is done, where the organisation is a processor."""


class ByHand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    controller: Controller = Controller()
    measures: tuple[str, ...] = ()
    """Organisational measures (GDPR 32(1))."""
    activity: dict[str, ActivityText] = {}


def load(path: Path) -> dict[str, Any]:
    """Read the file, or an empty one where there is none. Raises `SettingsError` naming the key that is wrong."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = msgspec.convert(tomllib.loads(text), ByHand)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError("register.toml cannot be read", hint="it is TOML in UTF-8; see docs/proof.md") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"register.toml: {error}", hint="see docs/proof.md, The registers") from error
    wrong = [name for name, each in found.activity.items() if each.role not in ("", "controller", "processor")]
    if wrong:
        raise SettingsError(f"register.toml: the role of {min(wrong)} is wrong", hint="controller or processor")
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain
