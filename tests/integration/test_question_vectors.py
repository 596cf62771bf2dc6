"""Vectors of questions: never laid beside another model's, and forgotten when anything is erased, here or elsewhere."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestion import collections
from ingestion.arrivals import Taken
from ingestion.claims import Claim
from residency.errors import ModelError
from service.bootstrap import domicile
from service.cli.common import operator
from service.findings import Search
from service.home import office, prepare
from service.searching import Results
from tests.doubles.homes import settings
from tests.doubles.ingesting import HashEmbedder

pytestmark = pytest.mark.enable_socket


class Counting(HashEmbedder):
    """Counts how often it was told to forget."""

    forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


async def _body() -> AsyncIterator[bytes]:
    yield b"The ferry to the island leaves at nine from the north quay.\n"


async def test_vectors_of_another_model_are_refused_and_remembered_questions_go_with_what_is_erased(
    tmp_path: Path,
) -> None:
    prepare(tmp_path / "home", zone="DE", operator="DE")
    chosen, embedder = settings(tmp_path / "home"), Counting("de")
    with office(chosen) as accounts:
        accounts.ensure_tenant("acme", ceiling=("EEA",), zone="DE")
    async with domicile(chosen, work=False, embedders={"de": embedder}) as house:
        asker = operator(chosen, "acme")
        claim = Claim("ferry.txt", jurisdictions=frozenset({"DE"}), residency=frozenset({"EEA"}), personal=False)
        taken = await house.intake.receive(_body(), claim, asker)
        assert isinstance(taken, Taken)
        await house.worker.drain()
        ask = Search("When does the ferry leave?")
        found = await house.searching.search(asker, ask)
        assert isinstance(found, Results) and found.findings.passages

        # another process made or erased something: its commit moved the number, and the next question sees it
        before = embedder.forgotten
        await house.searching.search(asker, ask)
        assert embedder.forgotten == before
        with house.database.transaction() as connection:
            collections.changed(connection, "acme")
        await house.searching.search(asker, ask)
        assert embedder.forgotten == before + 1

        mine, embedder.digest = embedder.digest, embedder.digest + "+int8"
        with pytest.raises(ModelError, match="vectors of another model, or of another precision"):
            await house.searching.search(asker, ask)
        embedder.digest = mine
        assert isinstance(await house.searching.search(asker, ask), Results)

        before = embedder.forgotten
        await house.erasure.erase(asker, taken.document.id)
        assert embedder.forgotten > before
