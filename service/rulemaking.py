"""Rulemaking: how other rules come into force: proposed, tried, approved by a second officer if they widen, recorded.

Rules kept here: a set that does not pass its trial is not even filed; one that permits anything that was not permitted
takes two different credentials; what is filed is what comes into force, by digest; activation and its record in the
Ledger are one transaction. Every process follows the one active row, and none gives up a good set for a broken one.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa

from residency.database import Database
from residency.decision import Principal
from residency.engine import Engine
from residency.errors import DomicileError, PolicyError
from residency.impact import Progress
from residency.leaves import failing
from residency.ledger import Ledger
from residency.policy import PolicySet
from residency.receipt import Draft
from residency.rulebook import Rulebook
from residency.trial import Consequence, Trial, consequence, examine
from residency.zones import Zones
from service.accounts import Accounts
from service.errors import ApprovalError, PolicyRejectedError, ScopeError
from service.rulestore import GOOD, LAST_GOOD, POINTER, active, active_policy, keep, lay, pointed, policy_sets

ACTIVITY: Final = "accountability"


class Inventory(Protocol):
    """What lies where; `ingestion.documents` is the body."""

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        """Give one row per distinct Tag and Site of a tenant's live documents."""
        ...


def given(files: dict[str, str]) -> Rulebook:
    """Make a Rulebook of texts from outside. Raises `PolicyRejectedError` for a name that no policies folder has."""
    try:
        return Rulebook({name: text.encode() for name, text in files.items()})
    except (PolicyError, UnicodeEncodeError) as error:
        hint = error.hint if isinstance(error, PolicyError) else "send plain UTF-8 texts"
        raise PolicyRejectedError(str(error), problems=[str(error)], hint=hint) from error


class Rulemaking:
    """Proposes, approves and follows. `steward` is the tenant whose admins may change the rules of all."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        ledger: Ledger,
        accounts: Accounts,
        inventory: Inventory,
        folder: Path,
        steward: str,
        health: str = GOOD,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database, self._engine, self._ledger = database, engine, ledger
        self._accounts, self._inventory = accounts, inventory
        self._folder, self._steward, self._clock = folder, steward, clock
        self.health = health
        """`ok`, or that and why the last good set is served."""
        self._served = pointed(folder / POINTER)
        self._refused = ""

    # --- trying -----------------------------------------------------------------------------------------------------

    def tried(self, book: Rulebook, progress: Progress | None = None) -> tuple[Trial, Consequence]:
        """Try a Rulebook and count what it would change; nothing is written. Raises what `trial.examine` raises."""
        ceilings = {tenant.id: tenant.ceiling for tenant in self._accounts.tenants()}
        rows = {tenant: self._inventory.placement(tenant) for tenant in ceilings}
        now = self._clock()
        fleet, engine = self._engine.fleet, self._engine
        made = examine(book, fleet, tenants=ceilings, rows=rows, now=now, progress=progress)
        changes = consequence(
            engine.policy,
            engine.zones,
            made.policy,
            made.zones,
            fleet,
            rows=rows,
            ceilings=ceilings,
            now=now,
            progress=progress,
        )
        return made, changes

    # --- proposing and approving ------------------------------------------------------------------------------------

    def propose(self, book: Rulebook, by: Principal, progress: Progress | None = None) -> dict[str, Any]:
        """File a Rulebook: one that widens nothing comes into force at once, another waits for a second credential.

        Raises `PolicyRejectedError` naming everything that is wrong, `ScopeError` for whoever may not.
        """
        self._allowed(by)
        made, changes = self._passed(book, progress)
        replaces = self.in_force
        if book.digest == replaces:
            raise ApprovalError("these rules are in force already", hint="nothing is to be done")
        facts = self._facts(made, book, changes)
        row = {
            "files": book.packed(),
            "facts": json.dumps(facts),
            "state": "waiting",
            "replaces": replaces,
            "proposed_by": by.id,
            "proposed_at": time.time(),
            "approved_by": "",
            "activated_at": None,
        }
        with self._database.transaction() as connection:
            connection.execute(policy_sets.delete().where(policy_sets.c.digest == book.digest))
            connection.execute(policy_sets.insert().values(digest=book.digest, **row))
            if changes.widens:
                self._record(connection, "proposed", facts, by, "", changes)
            else:
                keep(book, connection)
                self._activate(connection, facts, by.id, "", by, changes)
        if not changes.widens:
            self.follow()
        return self.proposal(book.digest)

    def approve(self, digest: str, by: Principal, progress: Progress | None = None) -> dict[str, Any]:
        """Put a waiting Rulebook in force, after trying it once more. The credential must not be the proposer's."""
        self._allowed(by)
        found = self.proposal(digest)
        self._waiting(found)
        if found["proposed_by"] == by.id:
            raise ApprovalError(
                "a widening change takes a second admin: this credential proposed it",
                hint="have another admin approve it with a key of their own",
            )
        if found["replaces"] != self.in_force:
            raise ApprovalError(
                "the rules in force have changed since this was proposed", hint="propose it again and read the new diff"
            )
        with self._database.reading() as connection:
            packed = connection.execute(
                sa.select(policy_sets.c.files).where(policy_sets.c.digest == found["digest"])
            ).scalar_one()
        book = Rulebook.unpacked(packed)
        if book.digest != found["digest"]:
            raise PolicyRejectedError("the stored proposal was changed", problems=[], hint="propose it again")
        made, changes = self._passed(book, progress)
        facts = self._facts(made, book, changes)
        with self._database.transaction() as connection:
            keep(book, connection)
            self._activate(connection, facts, found["proposed_by"], by.id, by, changes)
        self.follow()
        return self.proposal(book.digest)

    def withdraw(self, digest: str, by: Principal) -> dict[str, Any]:
        """Take a waiting proposal back, the proposer or any other admin; it can be proposed again, and is recorded."""
        self._allowed(by)
        found = self.proposal(digest)
        self._waiting(found)
        c = policy_sets.c
        mine = sa.and_(c.digest == found["digest"], c.state == "waiting")
        with self._database.transaction() as connection:
            if connection.execute(policy_sets.update().where(mine).values(state="withdrawn")).rowcount != 1:
                raise ApprovalError("somebody else settled this proposal", hint="see `domicile policy proposals`")
            facts = {"event": "withdrawn", "proposed_by": found["proposed_by"], "withdrawn_by": by.id}
            facts |= {"set": found["digest"], "policy": found["policy"], "zones": found["zones"]}
            for tenant in self._accounts.tenants():
                self._ledger.append(Draft("policy", tenant.id, ACTIVITY, facts=facts), connection)
        return self.proposal(found["digest"])

    @staticmethod
    def _waiting(found: dict[str, Any]) -> None:
        if found["state"] != "waiting":
            raise ApprovalError(f"this proposal was {found['state']} already", hint="see `domicile policy proposals`")

    def proposals(self) -> list[dict[str, Any]]:
        """List what was filed, newest first, without its files."""
        table = policy_sets.c
        wanted = sa.select(*(column for column in table if column.name != "files")).order_by(table.proposed_at.desc())
        with self._database.reading() as connection:
            return [_shown(row) for row in connection.execute(wanted)]

    def proposal(self, digest: str) -> dict[str, Any]:
        """Give one proposal; `digest` may be its first eight or more hex digits."""
        bare = digest.removeprefix("sha256:")
        found = [each for each in self.proposals() if each["digest"].removeprefix("sha256:").startswith(bare)]
        if len(bare) < 8 or len(found) != 1:
            raise ApprovalError("there is no such proposal", hint="see `domicile policy proposals`")
        return found[0]

    def _allowed(self, by: Principal) -> None:
        if "admin" not in by.scopes or by.tenant != self._steward:
            raise ScopeError(
                f"only admins of the tenant {self._steward} may change the rules of this installation",
                scope="admin",
                hint=f"domicile accounts key --tenant {self._steward} --scope admin",
            )

    def _passed(self, book: Rulebook, progress: Progress | None) -> tuple[Trial, Consequence]:
        try:
            made, changes = self.tried(book, progress)
        except DomicileError as error:
            raise PolicyRejectedError(
                f"these rules cannot stand: {error}", problems=[str(error)], hint=error.hint
            ) from error
        if not made.good:
            problems = made.problems
            raise PolicyRejectedError(
                f"these rules are refused: {len(problems)} problems, the first: {problems[0]}",
                problems=problems[:50],
                hint="mend them and see `domicile policy check`",
            )
        return made, changes

    @staticmethod
    def _facts(made: Trial, book: Rulebook, changes: Consequence) -> dict[str, Any]:
        examples = [str(each) for each in changes.impact.examples]
        return {
            "set": book.digest,
            "policy": made.policy.digest,
            "zones": made.zones.digest,
            "widens": changes.widens,
            **changes.facts(),
            "examples": examples,
        }

    # --- coming into force ------------------------------------------------------------------------------------------

    @property
    def in_force(self) -> str:
        """Digest of the active Rulebook; empty while the folder of the settings is in force."""
        with self._database.reading() as connection:
            return str(connection.execute(sa.select(active_policy.c.digest)).scalar() or "")

    def follow(self) -> bool:
        """Take over the active Rulebook if it is another than the one served; say whether it was.

        One that cannot be taken over leaves the last good one in force, and `health` says so. Run in a thread.
        """
        with self._database.reading() as connection:
            found = active(connection)
        if found is None:
            return False
        digest, packed = found
        try:
            book = Rulebook.unpacked(packed)
            zones: Zones = book.zones(self._clock())
            if book.digest != digest:
                raise PolicyError("the stored policy set is not the one that was activated", hint="activate it anew")
            chosen = PolicySet(book.rules(), zones)
            serving = self._engine.digests()
            same = (serving["policy"], serving["zones"]) == (chosen.digest, zones.digest)
            with self._database.transaction() as connection:
                keep(book, connection)
            if not same:
                self._engine.swap(chosen, zones)
            lay(book, self._folder)
        except (DomicileError, OSError) as error:
            self.health, self._refused = f"{LAST_GOOD}: {error}", digest
            return False
        self.health, self._refused, self._served = GOOD, "", digest
        return not same

    def pending(self) -> bool:
        """Say whether the active row names another Rulebook than this process serves or has refused already."""
        with failing("read"):
            return self.in_force not in {"", self._served, self._refused}

    def _activate(
        self,
        connection: sa.Connection,
        facts: dict[str, Any],
        proposed_by: str,
        approved_by: str,
        by: Principal,
        changes: Consequence,
    ) -> None:
        moment = time.time()
        connection.execute(active_policy.delete())
        connection.execute(active_policy.insert().values(id=1, digest=facts["set"], since=moment))
        mine = sa.and_(policy_sets.c.digest == facts["set"], policy_sets.c.state == "waiting")
        settled = {"state": "activated", "approved_by": approved_by, "activated_at": moment, "facts": json.dumps(facts)}
        if connection.execute(policy_sets.update().where(mine).values(settled)).rowcount != 1:
            raise ApprovalError("somebody else settled this proposal", hint="see `domicile policy proposals`")
        self._record(connection, "activated", {**facts, "proposed_by": proposed_by}, by, approved_by, changes)

    def _record(
        self,
        connection: sa.Connection,
        event: str,
        facts: dict[str, Any],
        by: Principal,
        approved_by: str,
        changes: Consequence,
    ) -> None:
        """Write one leaf for every tenant: each is ruled by the same rules, and sees counts of its own documents."""
        common = {key: value for key, value in facts.items() if key != "examples"}
        common = {"event": event, "proposed_by": by.id, "approved_by": approved_by, **common}
        for tenant in self._accounts.tenants():
            told = {**common, **changes.facts(tenant.id)}
            self._ledger.append(Draft("policy", tenant.id, ACTIVITY, facts=told), connection)


def _shown(row: Any) -> dict[str, Any]:
    return {
        "digest": row.digest,
        "state": row.state,
        "replaces": row.replaces,
        "proposed_by": row.proposed_by,
        "proposed_at": row.proposed_at,
        "approved_by": row.approved_by,
        "activated_at": row.activated_at,
        **{key: value for key, value in json.loads(row.facts).items() if key != "set"},
    }
