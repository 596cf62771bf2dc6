"""Problems: errors and Refusals as RFC 9457 bodies that OpenAI clients read too; the only status codes of errors.

One body serves both readers: problem+json members at the top, and OpenAI's four under `error` (the SDK takes
`body["error"]`). A Refusal is 403 with `x-should-retry: false`, never 5xx. No body holds document or question text, nor
the text of an unexpected exception.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from residency.decision import Refusal
from residency.errors import DomicileError, SiteError
from service import limits
from service.errors import LimitError, ScopeError

STATUS: Mapping[str, tuple[int, str]] = {
    "invalid_request": (400, "The request cannot be understood"),
    "unsupported_parameter": (400, "This parameter is not supported"),
    "unauthenticated": (401, "A valid key is needed"),
    "scope_missing": (403, "The key lacks a scope"),
    "residency_refused": (403, "This place is not permitted"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "This method is not served here"),
    "in_progress": (409, "The same call is still running"),
    "on_hold": (409, "A legal hold stands on it"),
    "state_conflict": (409, "The present state does not allow that"),
    "erased": (410, "Erased"),
    "tus_version_unsupported": (412, "This version of tus is not spoken here"),
    "too_large": (413, "Too large"),
    "unsupported_type": (415, "This type of file is not supported"),
    "empty_file": (422, "The file is empty"),
    "jurisdiction_missing": (422, "No usable jurisdiction was declared"),
    "zone_unknown": (422, "Unknown zone"),
    "policy_rejected": (422, "These rules cannot be put in force"),
    "idempotency_key_reused": (422, "This Idempotency-Key came with another payload"),
    "unreadable_file": (422, "The file cannot be read"),
    "upload_locked": (423, "Another call is sending this upload"),
    "rate_limited": (429, "Too many requests"),
    "checksum_mismatch": (460, "The bytes are not those of their checksum"),
    "client_closed": (499, "The client went away"),
    "document_damaged": (500, "What is sealed does not open"),
    "internal": (500, "Something broke on our side"),
    "site_unavailable": (503, "A permitted site does not answer"),
    "ledger_unavailable": (503, "The ledger cannot be written"),
    "key_provider_unavailable": (503, "A key provider does not answer"),
    "policy_unavailable": (503, "The policy cannot rule"),
    "timed_out": (504, "No answer in time"),
    "storage_full": (507, "No room left"),
}
"""Code -> status and title. Codes are stable; every one has its heading in docs/api.md."""

KINDS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
"""OpenAI's `error.type` by status; the rest are `invalid_request_error` below 500 and `server_error` above."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One error as it leaves: status, body, headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def problem(code: str, detail: str, *, instance: str = "", request_id: str = "", **extra: Any) -> Problem:
    """Build the one error body; `extra` become members, `param` also stands in `error`."""
    status, title = STATUS.get(code, STATUS["internal"])
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    remedy = extra.get("remedy") or extra.get("hint") or ""
    message = f"{detail} {_sentence(remedy)}" if remedy else detail
    error: dict[str, Any] = {"message": message, "type": kind, "param": extra.get("param"), "code": code}
    if "receipt" in extra:
        error["receipt"] = extra["receipt"]
    body: dict[str, Any] = {
        "type": f"urn:domicile:problem:{code.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **{key: value for key, value in extra.items() if value not in (None, "")},
        "help": f"docs/api.md#{code}",
        "error": error,
    }
    if instance:
        body["instance"] = instance
    if request_id:
        body["request_id"] = request_id
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (403, 409) and code != "in_progress":
        headers["x-should-retry"] = "false"
    if code == "in_progress":
        headers["Retry-After"] = "1"
    if status in (429, 503, 507):
        headers["Retry-After"] = str(max(1, math.ceil(extra.get("retry_after", 5))))
    if status == 429 and extra.get("limit"):
        headers |= limits.headers(extra["limit"], 0, extra.get("retry_after", 1))
    return Problem(status, body, headers)


def of_error(error: DomicileError, *, instance: str = "", request_id: str = "") -> Problem:
    """Turn a raised error into its problem; an unknown code is 500 without a message."""
    extra: dict[str, Any] = {"hint": error.hint}
    for name in ("param", "limit_bytes", "reason", "problems", "decision"):
        if (value := getattr(error, name, None)) is not None:
            extra[name] = value
    if isinstance(error, ScopeError):
        extra["scope"] = error.scope
    if isinstance(error, SiteError):
        extra["site"] = error.site
    if isinstance(error, LimitError):
        extra |= {"retry_after": error.retry_after, "limit": error.limit, "window_s": error.window_s}
    if error.code not in STATUS:
        return problem("internal", "The request failed.", instance=instance, request_id=request_id)
    return problem(error.code, _sentence(str(error)), instance=instance, request_id=request_id, **extra)


def of_refusal(refusal: Refusal, *, receipt: str = "", instance: str = "", request_id: str = "") -> Problem:
    """Turn a Refusal into 403 `residency_refused` with clauses, what is permitted and the nearest remedy."""
    facts = refusal.facts()
    why = "; ".join(clause.explain for clause in refusal.clauses)
    if not why:
        why = "; ".join(f"{policy} needs: {condition}" for policy, condition in refusal.why_not.items())
    where = f" at site {refusal.ask.site}" if refusal.ask.site else ""
    return problem(
        "residency_refused",
        f"The policy in force refuses {refusal.ask.action}{where}: {why or 'no permit applies'}.",
        instance=instance,
        request_id=request_id,
        reasons=facts["reasons"],
        why_not=facts["why_not"],
        permitted=facts["permitted"],
        remedy=refusal.remedy,
        receipt=receipt,
    )


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
