"""Everything that can go wrong while a Document comes in.

DomicileError
└── IngestionError
    ├── DocumentError     no such Document, or its state does not allow that
    │   ├── NotFoundError     an id that is not the tenant's, or never was: the two look the same
    │   ├── HoldError         it is on legal hold, so it is not erased
    │   ├── CursorError       a cursor that did not come from a listing
    │   └── DecidedError      a reviewer's decision stands already
    ├── DamagedError      what is sealed of a Document does not open
    ├── UploadError       a body that cannot be taken in (empty, too large, bad name)
    │   ├── TooLargeError
    │   ├── BusyError         another call is sending the same upload's bytes now
    │   └── ChecksumError     bytes that are not those of their checksum
    ├── ReaderError       a file that cannot be read; `reason` is one of the outcome codes of the sandbox
    ├── TagError          a declaration that makes no Tag
    ├── RulingError       what a reviewer may not decide
    ├── LeaseLostError    another worker has the Document now; drop the work
    ├── BackupError       an archive that cannot be written, or must not be believed
    └── ErasureError      an erasure that could not be completed; it stays `erasing`
"""

from typing import Any

from residency.errors import DomicileError


class IngestionError(DomicileError):
    """Anything that breaks while a Document comes in."""


class DocumentError(IngestionError):
    """The Document's state does not allow what was asked."""

    code = "state_conflict"


class NotFoundError(DocumentError):
    """No such id for this tenant."""

    code = "not_found"


class DamagedError(IngestionError):
    """What is sealed of this Document does not open: a bit was turned, or it stands in another's place."""

    code = "document_damaged"


class HoldError(DocumentError):
    """A legal hold stands on it; the message gives the hold's reason."""

    code = "on_hold"


class CursorError(DocumentError):
    """A cursor that did not come from a listing; `param` is the field it came in."""

    code = "invalid_request"
    param = "after"


class DecidedError(DocumentError):
    """Another decision on the same Tag stands; `decision` is its wire form."""

    def __init__(self, message: str, *, hint: str = "", decision: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.decision = decision


class RulingError(IngestionError):
    """A decision that a reviewer may not take, such as a wider Tag."""

    code = "invalid_request"


class UploadError(IngestionError):
    """A body or a name that cannot be taken in."""

    code = "invalid_request"


class EmptyFileError(UploadError):
    """A body of no bytes."""

    code = "empty_file"


class TooLargeError(UploadError):
    """A body beyond the limit; `limit_bytes` says which."""

    code = "too_large"

    def __init__(self, message: str, *, limit_bytes: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit_bytes = limit_bytes


class BusyError(UploadError):
    """Another call is sending bytes of the same upload now."""

    code = "upload_locked"


class ChecksumError(UploadError):
    """The bytes of one call are not those that its checksum names; none of them was kept."""

    code = "checksum_mismatch"


class ReaderError(IngestionError):
    """A file that cannot be read. `reason`: encrypted_file broken_file empty_text unsupported_type bomb
    parse_timeout parse_memory parse_crash.
    """

    code = "unreadable_file"

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class TagError(IngestionError):
    """A declaration that makes no Tag."""

    code = "jurisdiction_missing"


class LeaseLostError(IngestionError):
    """Another worker holds the Document; what this one did is dropped."""

    code = "lease_lost"


class ErasureError(IngestionError):
    """An erasure that is not complete; the Document stays `erasing` and is tried again."""

    code = "erasure_incomplete"


class BackupError(IngestionError):
    """An archive that cannot be written, or must not be believed; nothing was written into the house."""

    code = "backup_refused"
