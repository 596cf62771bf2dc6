"""Everything that can go wrong in the residency engine, as one tree.

    DomicileError
    └── ResidencyError
        ├── PolicyError      rules missing, broken or not activated
        ├── ZoneError        a code that is no known Zone
        ├── SiteError        a Site unknown, closed, unreachable or of the wrong Zone
        ├── RouteError       a Route absent, expired or made for something else
        ├── KeyringError     a key missing, destroyed or out of reach (KeyRefusedError: this key, not its provider)
        ├── SealedError      sealed bytes that do not open
        ├── ModelError       model files that are not the pinned ones
        ├── LedgerError      the Ledger cannot be written or does not hold (LeafError: it holds no such leaf or size)
        └── ViolationError   a violation that does not become that (NoViolationError: there is no such one)

An error means that something broke; a Refusal is a value and never raised.
Neither `str(error)` nor `hint` quotes content: ids, codes and counts only.
"""

from typing import ClassVar


class DomicileError(Exception):
    """The root of every error that Domicile raises on purpose.

    `code` is a stable slug: the problem type, and the error code that OpenAI clients see.
    `hint` says what to do next.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class DevelopmentOnlyWarning(UserWarning):
    """A body that gives up a protection is in use; never in production."""


class ResidencyError(DomicileError):
    """Anything that breaks inside the residency engine."""


class PolicyError(ResidencyError):
    """The rules are missing, do not parse, do not validate, or Cedar reported a fault."""

    code = "policy_unavailable"


class ZoneError(ResidencyError):
    """A code names no known Zone; the hint holds the nearest known one."""

    code = "zone_unknown"


class SiteError(ResidencyError):
    """A Site is unknown, closed or does not answer; `site` names it."""

    code = "site_unavailable"

    def __init__(self, message: str, *, site: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.site = site


class StorageFullError(SiteError):
    """A Site has no room left; nothing was written."""

    code = "storage_full"


class RouteError(ResidencyError):
    """An outlet was called without a fitting Route: a mistake in our code, never the asker's."""

    code = "route_invalid"


class KeyringError(ResidencyError):
    """A key is missing, destroyed, or its provider does not answer."""

    code = "key_provider_unavailable"


class KeyRefusedError(KeyringError):
    """A wrapped key does not open: bound to something else, damaged, or its KEK version was destroyed for ever."""


class SealedError(ResidencyError):
    """Sealed bytes do not open: wrong version, wrong context, a flipped bit or a cut-off end."""

    code = "sealed_damaged"


class ModelError(ResidencyError):
    """Model files are absent, unlisted, of a refused kind, or differ from their pinned digest."""

    code = "model_refused"


class LedgerError(ResidencyError):
    """The Ledger cannot be written, or what it holds does not verify."""

    code = "ledger_unavailable"


class LeafError(LedgerError):
    """The Ledger holds no such leaf, or has no such size."""

    code = "not_found"


class ViolationError(ResidencyError):
    """A violation cannot take that state, or is described in unknown words."""

    code = "state_conflict"


class NoViolationError(ViolationError):
    """There is no such violation for this tenant."""

    code = "not_found"
