"""Everything that can go wrong at the service's own edge.

DomicileError
└── ServiceError
    ├── SettingsError     domicile.toml or a DOMICILE_ variable is wrong
    ├── HomeError         the home is missing, or another process holds it
    ├── CredentialError   no key, a wrong key, or a revoked one
    ├── ScopeError        a good key without the scope
    ├── LimitError        too many at once
    ├── PolicyRejectedError  rules that may not be put in force
    └── ApprovalError     a proposal that cannot be approved, or not by this credential
"""

from residency.errors import DomicileError


class ServiceError(DomicileError):
    """Anything that breaks at the service's edge."""


class SettingsError(ServiceError):
    """A setting is wrong; the message names the key, the hint the nearest known one."""

    code = "settings_invalid"


class HomeError(ServiceError):
    """The home is missing, incomplete, or held by another process."""

    code = "home_unavailable"


class CredentialError(ServiceError):
    """No key, a wrong one, or a revoked one."""

    code = "unauthenticated"


class ScopeError(ServiceError):
    """A good key that lacks the scope; `scope` names it."""

    code = "scope_missing"

    def __init__(self, message: str, *, scope: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.scope = scope


class InvalidRequestError(ServiceError):
    """A request that cannot be understood; `param` names the field."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param


class UnsupportedParameterError(InvalidRequestError):
    """A parameter that would change the meaning and is not supported."""

    code = "unsupported_parameter"


class LimitError(ServiceError):
    """Too many requests; `retry_after` in seconds."""

    code = "rate_limited"

    def __init__(
        self, message: str, *, retry_after: float, limit: int | None = None, window_s: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.limit = limit
        self.window_s = window_s


class PolicyRejectedError(ServiceError):
    """Rules that may not be put in force; `problems` lists everything that is wrong with them."""

    code = "policy_rejected"

    def __init__(self, message: str, *, problems: list[str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class ApprovalError(ServiceError):
    """A proposal that is not there, was decided already, is out of date, or needs another credential."""

    code = "state_conflict"


class LateError(ServiceError):
    """The answer was not ready in time, and its making was stopped."""

    code = "timed_out"


class GoneError(ServiceError):
    """The client closed its connection before the answer was ready; nobody reads this."""

    code = "client_closed"


class ReusedKeyError(ServiceError):
    """An `Idempotency-Key` that came with another payload before."""

    code = "idempotency_key_reused"


class InProgressError(ServiceError):
    """A call with the same `Idempotency-Key` is still running."""

    code = "in_progress"
