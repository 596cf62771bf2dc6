"""verify: check Receipts, Reports, certificates and checkpoints offline, from nothing but the files given.

Rules kept here: pure, no network, no database; every check that was made is named, and so is every check that
could not be. A check that fails makes the verdict false, one that could not be made leaves it open.
What no file can show is said in the last sentence: grades of evidence, never a proof of physical place.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any, Final

from residency import notes, tlog
from residency.errors import DomicileError
from residency.evidence import GRADES
from residency.exhibits import CERTIFICATE, UNKNOWN, Exhibits
from residency.fleet import Fleet
from residency.receipt import VERSION, canonical, leaf

GOOD, FALSE, OPEN, NOTE = "good", "false", "open", "note"
CODES: Final = {GOOD: 0, FALSE: 1, OPEN: 2}
APART: Final = ("transfer", "erase")
"""Actions that are listed apart: a transfer leaves the residency by its nature, an erasure may happen anywhere."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one file: `state` is good, false, open (could not be made) or note."""

    file: str
    name: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found. `code`: 0 good, 1 false, 2 open; the exit code of the command."""

    code: int
    checks: tuple[Check, ...]
    sentence: str

    @property
    def lines(self) -> list[str]:
        """One line a check and the closing sentence, for people."""
        marks = {GOOD: "ok   ", FALSE: "FALSE", OPEN: "open ", NOTE: "     "}
        return [f"{marks[c.state]} {c.file}: {c.name}: {c.text}" for c in self.checks] + [self.sentence]

    def facts(self) -> dict[str, Any]:
        """The same as JSON-able data."""
        checks = [{"file": c.file, "check": c.name, "state": c.state, "text": c.text} for c in self.checks]
        return {"format": "domicile-verdict/v1", "code": self.code, "sentence": self.sentence, "checks": checks}


def verify(files: Mapping[str, bytes]) -> Verdict:
    """Check every Receipt and Report among `files` (name to bytes) against the trust, zones, fleet and policy files.

    Never raises for what a file holds.
    """
    return _Verifying().run(files)


class _Verifying:
    """One run: what was given and what was found."""

    def __init__(self) -> None:
        self.given = Exhibits()
        self.checks: list[Check] = []
        self._points: dict[str, list[tuple[str, tlog.Checkpoint]]] = {}
        self.grades: list[int] = []
        self.sites: set[str] = set()
        self.zones: set[str] = set()

    def run(self, files: Mapping[str, bytes]) -> Verdict:
        for name, data in files.items():
            self._guard(name, "file", partial(self._take, name, data))
        for name, bundle in self.given.receipts.items():
            self._guard(name, "receipt", partial(self._receipt, name, bundle))
        for name, bundle in self.given.reports.items():
            self._guard(name, "report", partial(self._report, name, bundle))
        for name, note in self.given.checkpoints.items():
            self._guard(name, "checkpoint", partial(self._checkpoint, name, note))
        self._continuing()
        for name in self.given.proofs:
            self._note(name, "inclusion", FALSE, "bad inclusion: it proves none of the receipts given")
        if not (self.given.receipts or self.given.reports or self.given.checkpoints):
            self._note("-", "files", OPEN, "no receipt, report, certificate or checkpoint among the files")
        states = {check.state for check in self.checks}
        state = FALSE if FALSE in states else OPEN if OPEN in states else GOOD
        return Verdict(CODES[state], tuple(self.checks), self._sentence(state))

    def _note(self, file: str, name: str, state: str, text: str) -> bool:
        self.checks.append(Check(file, name, state, text))
        return state == GOOD

    def _guard(self, file: str, name: str, check: Callable[[], object]) -> None:
        """Whatever a malformed file makes a check raise is a false file."""
        try:
            check()
        except DomicileError as error:
            self._note(file, name, FALSE, str(error))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
            self._note(file, name, FALSE, f"malformed ({type(error).__name__})")

    def _take(self, name: str, data: bytes) -> None:
        said = self.given.add(name, data)
        if said:
            self._note(name, "file", OPEN if said == UNKNOWN else NOTE, said)

    # --- a Receipt --------------------------------------------------------------------------------------------------

    def _receipt(self, name: str, bundle: dict[str, Any]) -> None:
        if set(bundle) != {"format", "receipt", "signatures", "proof"}:
            self._note(name, "form", FALSE, "it does not have exactly the fields of a receipt file")
            return
        receipt = bundle["receipt"]
        body = leaf(receipt)
        if receipt["v"] != VERSION:
            self._note(name, "form", OPEN, "a version that this program does not know")
        self._signed(name, "signature", body.decode() + "\n", bundle["signatures"])
        self._included(name, body, bundle["proof"])
        self._digests(name, receipt)
        self._placed(name, receipt)

    def _signed(self, name: str, check: str, text: str, lines: Sequence[str]) -> bool:
        trust = self.given.trust
        if trust is None:
            return self._note(name, check, OPEN, "no trust file was given, so nobody's signature can be checked")
        found = notes.signers(text, lines, trust.logs)
        if not found:
            return self._note(name, check, FALSE, "bad signature: no trusted log signed it")
        return self._note(name, check, GOOD, f"signed by {found[0].name}")

    def _included(self, name: str, body: bytes, proof: str | None) -> None:
        if proof is None:
            hash_ = tlog.leaf_hash(body)
            proof = next((text for text in self.given.proofs.values() if _proves(text, hash_)), None)
        if proof is None:
            self._note(name, "inclusion", OPEN, "no proof yet: ask for the receipt again, or give its .tlog-proof")
            return
        self.given.proofs = {key: text for key, text in self.given.proofs.items() if text != proof}
        found = tlog.Proof.parse(proof)
        point = self._checkpoint(name, found.checkpoint)
        good = tlog.included(tlog.leaf_hash(body), found.index, point.size, found.hashes, point.root)
        place = f"leaf {found.index} of {point.size} in {point.origin}"
        self._note(name, "inclusion", GOOD if good else FALSE, place if good else f"bad inclusion: not {place}")

    def _checkpoint(self, name: str, note: str) -> tlog.Checkpoint:
        """Check who signed a checkpoint, that it is of that log, and that enough witnesses saw it."""
        text, lines = notes.split(note)
        point = tlog.Checkpoint.parse(text)
        self._points.setdefault(point.origin, []).append((name, point))
        if self._signed(name, "checkpoint", text, lines) and self.given.trust is not None:
            trust = self.given.trust
            known = notes.signers(text, lines, [*trust.logs, *trust.witnesses.values()])
            if point.origin not in {key.name for key in known if key.kind == notes.LOG}:
                self._note(name, "origin", FALSE, "the checkpoint is of another log than the one that signed it")
            have, need = trust.seen(known)
            state = GOOD if have >= need else FALSE
            self._note(name, "witnesses", state, f"quorum {have}/{need}" if need else "none asked for")
        return point

    def _continuing(self) -> None:
        """Two checkpoints of one log are of one history: the same root, or a proof that one continues the other."""
        used: set[str] = set()
        for points in self._points.values():
            by_size = sorted({(point.size, point.root): (name, point) for name, point in points}.values(), key=_size)
            for (_, old), (name, new) in pairwise(by_size):
                self._continues(name, old, new, used)
        for name in self.given.consistency.keys() - used:
            self._note(name, "consistency", OPEN, "the two checkpoints that it is about were not given")

    def _continues(self, name: str, old: tlog.Checkpoint, new: tlog.Checkpoint, used: set[str]) -> None:
        what = f"{old.size} leaves to {new.size}"
        if old.size == new.size:
            self._note(name, "consistency", FALSE, f"two histories: {old.size} leaves have two roots; keep both files")
            return
        fitting = {key: p for key, p in self.given.consistency.items() if p[:2] == (old.size, new.size)}
        used.update(fitting)
        if not fitting and old.size:
            self._note(name, "consistency", NOTE, f"no proof given that the log only grew from {what}")
        for key, (_, _, hashes) in fitting.items():
            good = tlog.consistent(old.size, new.size, old.root, new.root, hashes)
            text = f"the log only grew, from {what}" if good else f"bad consistency: not shown from {what}"
            self._note(key, "consistency", GOOD if good else FALSE, text)

    def _digests(self, name: str, receipt: Mapping[str, Any]) -> None:
        have = {
            "policy": self.given.policy_digests,
            "zones": set(self.given.zones),
            "fleet": self._fleet_digests(receipt["zones"]),
        }
        for kind, digests in have.items():
            if not digests:
                self._note(name, kind, NOTE, f"the receipt names {receipt[kind]}; no such file was given")
            elif receipt[kind] in digests:
                many = f"one of the {len(digests)} given" if len(digests) > 1 else "the file given"
                self._note(name, kind, GOOD, f"{many} is the one that was in force")
            else:
                many = f"none of the {len(digests)} given is" if len(digests) > 1 else "the file given is not"
                self._note(name, kind, FALSE, f"{many} the one that was in force")

    def _fleet_digests(self, named: str) -> set[str]:
        """Give the digests of the Fleets given, read with the table of Zones that the Receipt names if it is there."""
        tables = self.given.zones
        found = set()
        for zones in [tables[named]] if named in tables else tables.values():
            for text in self.given.fleets:
                try:
                    found.add(Fleet.parse(text, zones).digest)
                except DomicileError:  # unreadable with these zones: surely not the pair that was in force
                    found.add("unreadable")
        return found

    def _placed(self, name: str, receipt: Mapping[str, Any]) -> None:
        """Each step's Zone lies in its Tag's residency, by the committed zones on that date."""
        steps = [step for step in receipt["steps"] if step["action"] not in APART]
        for step in receipt["steps"]:
            self.grades.append(step["grade"])
            self.sites.add(step["site"])
            self.zones.add(step["zone"])
            if step["action"] in APART:
                basis = receipt.get("facts", {}).get("basis")
                why = f", on the basis of {basis['article']} {basis['instrument']}" if basis else ""
                self._note(name, step["action"], NOTE, f"{step['count']} at {step['site']} ({step['zone']}){why}")
        zones = self.given.zones.get(receipt["zones"])
        if not steps:
            return
        if zones is None:
            self._note(name, "residency", OPEN, "give the zones.toml whose digest the receipt names")
            return
        zones = zones.at(datetime.fromisoformat(receipt["time"]))
        for step in steps:
            codes = step.get("zones", [step["zone"]])
            for number in step["tag"]:
                residency = receipt["tags"][number]["residency"]
                if not any(zones.within(code, outer) for code in codes for outer in residency):
                    text = f"{step['action']} at {step['site']} in {step['zone']} lies outside {', '.join(residency)}"
                    self._note(name, "residency", FALSE, text)
                    return
        self._note(name, "residency", GOOD, f"all {len(steps)} steps lie in Zones that their Tags name")

    # --- a Report ---------------------------------------------------------------------------------------------------

    def _report(self, name: str, bundle: dict[str, Any]) -> None:
        if set(bundle) != {"format", "report", "signatures", "receipt"}:
            self._note(name, "form", FALSE, "it does not have exactly the fields of a report file")
            return
        report, receipt = bundle["report"], bundle["receipt"]
        body = canonical(report)
        self._signed(name, "signature", body.decode() + "\n", bundle["signatures"])
        if receipt is None:
            self._note(name, "receipt", OPEN, "the report names no entry in the ledger")
            return
        self._receipt(f"{name} (its receipt)", receipt)
        entry = receipt["receipt"]
        if report["schema"] == CERTIFICATE:
            self._certificate(name, report["erasure"], entry)
            return
        same = entry["facts"]["report"] == "sha256:" + hashlib.sha256(body).hexdigest()
        same = same and entry["tenant"] == report["head"]["tenant"]
        text = "the ledger's entry names this very report" if same else "the ledger's entry is of another report"
        self._note(name, "receipt", GOOD if same else FALSE, text)
        self.grades.append(report["coverage"]["lowest_grade"])
        self.sites |= {site["id"] for site in report["sites"]}
        self.zones |= {site["zone"] for site in report["sites"]}

    def _certificate(self, name: str, erasure: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        """An erasure's certificate says what the erasure's own entry says, and what is not erased yet."""
        same = entry["kind"] == "erase" and entry["facts"].items() <= erasure.items()
        same = same and (entry["id"], entry["tenant"]) == (erasure["receipt"], erasure["tenant"])
        same = same and entry["subject"] == erasure["document"]
        text = "the erasure's entry in the ledger says the same" if same else "the ledger's entry is of another erasure"
        self._note(name, "erasure", GOOD if same else FALSE, text)
        for residual in erasure["residuals"]:
            self._note(name, "residual", NOTE, f"not erased before {residual['due']}: {residual['what']}")
        self._note(name, "limits", NOTE, "it shows what the operator recorded of its stores, not that no copy exists")

    def _sentence(self, state: str) -> str:
        begin = {
            GOOD: "Good: everything given holds.",
            FALSE: "FALSE: at least one check failed; do not rely on these files.",
            OPEN: "Open: what could be checked holds, but something is missing.",
        }[state]
        if state == FALSE or not self.sites:
            return begin
        grade = min(self.grades, default=0)
        return (
            f"{begin} Recorded at {len(self.sites)} Site(s) that the operator's Fleet places in "
            f"{', '.join(sorted(self.zones))}; lowest evidence grade {grade} ({GRADES.get(grade, 'unknown')}). "
            "This shows what was recorded, not where a machine stands."
        )


def _size(item: tuple[str, tlog.Checkpoint]) -> int:
    return item[1].size


def _proves(proof: str, hash_: bytes) -> bool:
    try:
        found = tlog.Proof.parse(proof)
        point = tlog.Checkpoint.parse(notes.split(found.checkpoint)[0])
    except DomicileError:
        return False
    return tlog.included(hash_, found.index, point.size, found.hashes, point.root)
