"""exhibits: the files given to `verify`, told apart by what is in them.

Rules kept here: pure; a file that cannot be read as what it says it is raises, one of no known kind is named; JSON with
a field twice is refused, so that no two readers can read it differently. Policy texts are known by their ending, which
their digest covers. Rules change: several tables of Zones, policies folders and Fleets may be given, each found by its
digest.
"""

import json
import re
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from residency import notes, tlog
from residency.errors import LedgerError
from residency.rulebook import digest
from residency.zones import Zones

RECEIPT: Final = "domicile-receipt/v1"
REPORT: Final = "domicile-report/v1"
CERTIFICATE: Final = "domicile-erasure-certificate/1"
"""Schema of the master in a certificate's bundle, which else is a report's."""
MOST_ATTACHED: Final = 64 * 1024 * 1024
"""Bytes that an attachment may unpack to."""


UNKNOWN: Final = "of no kind that can be checked"
ASIDE: Final = "a worked case, a read-me, or rules of tagging or retention: no evidence"
_ASIDE: Final = ("README.md", "retention.toml", "tagging.toml")
DRAWN: Final = "the pages are drawn from the attached evidence; the signature covers the evidence"


@dataclass(slots=True)
class RuleFiles:
    """The policy texts of one folder, by file name."""

    present: dict[str, bytes] = field(default_factory=dict)
    offered: dict[str, bytes] = field(default_factory=dict)
    """Ready-made sets of a policies folder; in force are those that its `sets.toml` uses."""
    used: tuple[str, ...] = ()

    @property
    def in_force(self) -> dict[str, bytes]:
        """What lies beside the schema, and the sets in use."""
        return self.present | {name: data for name, data in self.offered.items() if name in self.used}


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
    zones: dict[str, Zones] = field(default_factory=dict)
    """Tables of Zones by digest."""
    fleets: list[str] = field(default_factory=list)
    rules: dict[str, RuleFiles] = field(default_factory=dict)
    """Policy texts by the folder that they came from."""

    def add(self, name: str, data: bytes) -> str:
        """Take in a file; gives what to say about it, or "". A false file raises `ValueError` or `DomicileError`."""
        *folders, base = re.split(r"[/\\]", name)
        if "cases" in folders or base in _ASIDE:  # a policies folder comes whole
            return ASIDE
        if data.startswith(b"%PDF-"):
            return self._pdf(name, data)
        if base.endswith((".cedar", ".cedarschema")):
            ready_made = folders[-1:] == ["sets"]
            rules = self._rules(folders[:-1] if ready_made else folders)
            (rules.offered if ready_made else rules.present)[base] = data
        elif base == "sets.toml":
            self._rules(folders).used = tuple(f"{each}.cedar" for each in tomllib.loads(data.decode())["use"])
        elif data.startswith(tlog.PROOF_HEAD.encode()):
            self.proofs[name] = data.decode()
        elif re.match(rb"[^\n]+\n\d+\n[A-Za-z0-9+/]{43}=\n\n\xe2\x80\x94 ", data):
            self.checkpoints[name] = data.decode()
        elif data.lstrip()[:1] == b"{":
            return self._json(name, data)
        elif re.search(rb"^\[\[edge\]\]", data, re.MULTILINE):
            table = Zones.parse(data)
            self.zones[table.digest] = table
        elif re.search(rb"^\[\[site\]\]", data, re.MULTILINE):
            self.fleets.append(data.decode())
        elif re.search(rb"^\s*quorum\s", data, re.MULTILINE):
            self._alone(self.trust)
            self.trust = notes.Trust.parse(data.decode())
        elif re.fullmatch(rb"\S+\+[0-9a-f]{8}\+\S+\s*", data):
            self._alone(self.trust)
            self.trust = notes.Trust((notes.Verifier.parse(data.decode().strip()),))
        else:
            return UNKNOWN
        return ""

    def _rules(self, folders: Sequence[str]) -> RuleFiles:
        return self.rules.setdefault("/".join(folders), RuleFiles())

    @staticmethod
    def _alone(held: object) -> None:
        if held is not None:
            raise LedgerError("a second trust file", hint="put every key that you trust into one file")

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
    def policy_digests(self) -> set[str]:
        """Digests of the policy texts in force: of each folder, and of all together where they lie apart."""
        folders = [each.in_force for each in self.rules.values()]
        together = {name: data for files in folders for name, data in files.items()}
        return {digest(files) for files in [*folders, together] if files}


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
