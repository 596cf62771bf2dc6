"""Tending: what is promised of keys is kept without anybody asking, once an hour.

An erasure promises that old backups open no more within the horizon. So the KEK under which erased keys lay is rolled
soon after, its survivors are rewrapped, and the old version is destroyed when it is due; then the provider gets a new
root, and the certificates that waited for it are completed.
Rules kept here: what fails at one Site is named in the log and tried again, and the others go on; doing it twice, or in
two processes at once, does no harm.
"""

import logging
from collections.abc import Awaitable
from typing import Any, Final

from ingestion.promises import Promises
from residency.database import Database
from residency.errors import DomicileError
from residency.keyring import Keyring
from residency.keyrows import KekState
from service.custody import Custody

log = logging.getLogger(__name__)

ROLL_AFTER: Final = 86_400.0
"""Seconds after an erasure until its KEK is rolled: the erasures of a day share one roll."""


class Tending:
    """Keeps the promises of erasures. `horizon` in seconds, as the Keyring and the certificates have it."""

    def __init__(
        self, *, database: Database, keyring: Keyring, custody: Custody, promises: Promises, horizon: float
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._custody = custody
        self._promises = promises
        self._horizon = horizon

    async def once(self) -> dict[str, int]:
        """Do everything that is due now; counts `rolled`, `rewrapped`, `destroyed`, `rooted`, `completed`, `failed`."""
        done = {"rolled": 0, "rewrapped": 0, "destroyed": 0, "rooted": 0, "completed": 0, "failed": 0}

        async def tried(what: str, state: KekState, call: Awaitable[Any]) -> None:
            try:
                await call
                done[what] += 1
            except DomicileError as error:
                done["failed"] += 1
                log.warning(
                    "keys could not be tended",
                    extra={"step": what, "site": state.ref.site, "version": state.ref.version, "error": str(error)},
                )

        for state in await self._keyring.listing():
            ref = state.ref
            if state.state == "active" and state.due is not None and self._rolls(state):
                await tried("rolled", state, self._custody.rotate_at(ref.tenant, ref.jurisdiction, ref.site))
        places = {
            (each.ref.id, each.ref.site): each for each in await self._keyring.listing() if each.state == "retiring"
        }
        for state in places.values():
            ref = state.ref
            await tried("rewrapped", state, self._custody.rewrap(ref.tenant, ref.jurisdiction, site=ref.site))
        sites: dict[str, KekState] = {}
        for state in await self._keyring.listing():  # by version, the oldest first
            if state.ripe:
                before = done["destroyed"]
                await tried("destroyed", state, self._custody.destroy_one(state.ref))
                if done["destroyed"] > before:
                    sites[state.ref.site] = state
        for site, state in sites.items():
            await tried("rooted", state, self._custody.roll(site))
        done["completed"] = await self.complete()
        return done

    async def complete(self) -> int:
        """Complete the certificates that waited for a version destroyed by now; gives how many."""
        return await self._database.run(self._promises.keep)

    def _rolls(self, state: KekState) -> bool:
        erased = (state.due or 0.0) - self._horizon
        return state.now >= erased + min(ROLL_AFTER, self._horizon / 2)
