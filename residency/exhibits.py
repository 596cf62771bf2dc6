"""exhibits: the files given to `verify`, told apart by what is in them.

Rules kept here: pure; a file that cannot be read as what it says it is raises, one of no known kind is named; JSON with
a field twice is refused, so that no two readers can read it differently. Policy texts are known by their ending, which
their digest covers.
"""

import hashlib
import json
import re
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from residency import notes, tlog
from residency.errors import LedgerError
from residency.zones import Zones

RECEIPT: Final = "domicile-receipt/v1"
REPORT: Final = "domicile-report/v1"
CERTIFICATE: Final = "domicile-erasure-certificate/1"
"""Schema of the master in a certificate's bundle, which else is a report's."""
MOST_ATTACHED: Final = 64 * 1024 * 1024
"""Bytes that an attachment may unpack to."""


UNKNOWN: Final = "of no kind that can be checked"
ASIDE: Final = "a worked case or a read-me, no evidence"
DRAWN: Final = "the pages are drawn from the attached evidence; the signature covers the evidence"


@dataclass(slots=True)
class Exhibits:
    """What was given: Receipts and Reports by file name, and what to check them against."""

    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    """Signed checkpoints that stand alone, for what their logs said at two times."""
    consistency: dict[str, tuple[int, int, tuple[bytes, ...]]] = field(default_factory=dict)
    """Proofs that a tree continues another: (old size, new size, hashes)."""
    proofs: dict[str, str] = field(default_factory=dict)
    trust: notes.Trust | None = None
    zones: Zones | None = None
    fleet: str | None = None
    policy: dict[str, bytes] = field(default_factory=dict)
    offered: dict[str, bytes] = field(default_factory=dict)
    """Ready-made sets of a policies folder; in force are those that its `sets.toml` uses."""
    used: tuple[str, ...] = ()

    def add(self, name: str, data: bytes) -> str:
        """Take in a file; gives what to say about it, or "". A false file raises `ValueError` or `DomicileError`."""
        *folders, base = re.split(r"[/\\]", name)
        if "cases" in folders or base == "README.md":  # a policies folder comes with its worked cases
            return ASIDE
        if data.startswith(b"%PDF-"):
            return self._pdf(name, data)
        if base.endswith((".cedar", ".cedarschema")):
            (self.offered if folders[-1:] == ["sets"] else self.policy)[base] = data
        elif base == "sets.toml":
            self.used = tuple(f"{each}.cedar" for each in tomllib.loads(data.decode())["use"])
        elif data.startswith(tlog.PROOF_HEAD.encode()):
            self.proofs[name] = data.decode()
        elif re.match(rb"[^\n]+\n\d+\n[A-Za-z0-9+/]{43}=\n\n\xe2\x80\x94 ", data):
            self.checkpoints[name] = data.decode()
        elif data.lstrip()[:1] == b"{":
            return self._json(name, data)
        elif re.search(rb"^\[\[edge\]\]", data, re.MULTILINE):
            self._alone(self.zones)
            self.zones = Zones.parse(data)
        elif re.search(rb"^\[\[site\]\]", data, re.MULTILINE):
            self._alone(self.fleet)
            self.fleet = data.decode()
        elif re.search(rb"^\s*quorum\s", data, re.MULTILINE):
            self._alone(self.trust)
            self.trust = notes.Trust.parse(data.decode())
        elif re.fullmatch(rb"\S+\+[0-9a-f]{8}\+\S+\s*", data):
            self._alone(self.trust)
            self.trust = notes.Trust((notes.Verifier.parse(data.decode().strip()),))
        else:
            return UNKNOWN
        return ""

    @staticmethod
    def _alone(held: object) -> None:
        if held is not None:
            raise LedgerError(
                "a second file of a kind that can be given once", hint="give one trust, zones, fleet file"
            )

    def _json(self, name: str, data: bytes) -> str:
        bundle = json.loads(data, object_pairs_hook=_once, parse_constant=_refused)
        if set(bundle) == {"old", "new", "hashes"}:
            self.consistency[name] = (int(bundle["old"]), int(bundle["new"]), tuple(map(tlog.decode, bundle["hashes"])))
            return ""
        kinds = {RECEIPT: self.receipts, REPORT: self.reports}
        if bundle.get("format") not in kinds:
            return UNKNOWN
        kinds[bundle["format"]][name] = bundle
        return ""

    def _pdf(self, name: str, data: bytes) -> str:
        """Take what is attached to a PDF; only that is signed, the pages are drawn from it."""
        bodies = [body for body in attachments(data) if body.lstrip()[:1] == b"{"]
        for number, body in enumerate(bodies, 1):
            self._json(f"{name}#{number}", body)
        return DRAWN if bodies else UNKNOWN

    @property
    def policy_digest(self) -> str:
        """Digest of the policy files in force: over each name, 0x00, length in 8 bytes, and bytes, sorted by name."""
        total = hashlib.sha256()
        inside = {name: data for name, data in self.offered.items() if name in self.used}
        for name, data in sorted((self.policy | inside).items()):
            total.update(name.encode() + b"\x00" + len(data).to_bytes(8, "big") + data)
        return "sha256:" + total.hexdigest()


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands there twice")
    return found


def _refused(constant: str) -> None:
    raise ValueError(constant)


def attachments(pdf: bytes) -> Iterator[bytes]:
    """Give the files embedded in a PDF of ours, whose dictionaries lie in the open (ISO 32000-2 section 7.11.4)."""
    for match in re.finditer(rb"/EmbeddedFile\b[^\x00]{0,1000}?\bstream\r?\n", pdf):
        body = pdf[match.end() : pdf.find(b"endstream", match.end())]
        if b"/FlateDecode" in match.group() or b"/FlateDecode" in pdf[max(0, match.start() - 300) : match.start()]:
            unpacking = zlib.decompressobj()
            try:
                body = unpacking.decompress(body, MOST_ATTACHED)
            except zlib.error as error:
                raise ValueError("an attachment is damaged") from error
            if not unpacking.eof:
                raise ValueError("an attachment is cut off or too large")
        yield body
