"""States: where a Document version stands, what holds it up, and what to do next.

The transitions are `pipeline.py`'s and `erasure.py`'s; people meet three ends: live, quarantined, failed.
"""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a version stands; people meet three ends: live, quarantined, failed."""

    RECEIVING = "receiving"
    MOVING = "moving"
    SEALED = "sealed"
    PARSED = "parsed"
    TAGGED = "tagged"
    SPLIT = "split"
    EMBEDDED = "embedded"
    INDEXED = "indexed"
    LIVE = "live"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    REPLACED = "replaced"
    ARCHIVED = "archived"
    ERASING = "erasing"
    ERASED = "erased"


COMING: Final = (State.SEALED, State.PARSED, State.TAGGED, State.SPLIT, State.EMBEDDED, State.INDEXED)
"""On the way to live, a worker's business."""
READY: Final = (*COMING, State.REPLACED, State.ERASING, State.MOVING)
"""What a worker may take; the index of the queue names them in this order."""
LIVING: Final = (*COMING, State.LIVE, State.QUARANTINED)
"""A version that stands for the Document: the same bytes again change nothing."""
RETAGGING: Final = "retagging"
"""Cause of a quarantined version whose Tag was changed: its copy under the new Tag is on the way."""
PAUSED: Final = 9e14
"""A `not_before` that comes when a person resumes the Document."""
NEVER: Final = 1e15
"""A `not_before` that does not come: another version's row carries the work."""

HINTS: Final[dict[str, str]] = {
    "encrypted_file": "remove the password and upload the file again",
    "broken_file": "the file does not open; save it again from its program and upload that",
    "empty_text": "there is no text in it; a scan needs Tesseract at the service, or text recognition before upload",
    "unsupported_type": "upload it under its own ending and type, in one of the formats of docs/ingestion.md",
    "bomb": "the file unpacks to far more than it may; upload its parts singly",
    "parse_timeout": "reading took too long; split the file and upload the parts",
    "parse_memory": "reading took too much memory; split the file and upload the parts",
    "parse_crash": "the reader broke off on this file; save it in another format and upload that",
    "poison": "work on it broke off several times; ask your operator to look, then retry",
    "tag_disputed": "its text points to another jurisdiction than declared; a reviewer decides",
    "site_refused": "the Site that holds it is not permitted under its narrowed Tag; a reviewer decides",
    "retagging": "its Tag was changed; it is sealed anew under the new one and comes back by itself",
    "retag_failed": "it could not be sealed anew under its new Tag; a reviewer decides again",
    "paused": "work on it is paused; resume it",
    "residency_denied": "the policy refuses this step at present; it goes on when the policy permits it",
    "site_unavailable": "a Site does not answer; it goes on by itself",
    "storage_full": "a Site has no room left; it goes on when there is some",
    "key_provider_unavailable": "the key provider does not answer; it goes on by itself",
    "ledger_unavailable": "the Ledger cannot be written; it goes on by itself",
    "sealed_damaged": "its sealed file does not open; upload the original again",
    "model_refused": "the embedding model refused it; ask your operator to look",
    "model_changed": "its collection holds vectors of another model; use another collection",
    "internal": "something broke that should not; ask your operator to look, then retry",
}
"""What to do next, by cause."""
