"""Rehearsal: the service's main job, once, on an empty home and with a text of our own: in, found, reported, erased."""

from collections.abc import AsyncIterator, Callable
from typing import Final

from ingestion.arrivals import Taken
from ingestion.claims import Claim
from ingestion.documents import State
from residency.decision import Principal
from service.accounts import ACTIVITIES, SCOPES
from service.answering import Answer, Question
from service.bootstrap import domicile
from service.errors import HomeError
from service.home import office
from service.settings import Settings

TENANT: Final = "rehearsal"
TEXT: Final = (
    "# The sluice\n\n"
    "The lamp above the sluice is red. It burns from dusk until dawn.\n\n"
    "Whoever opens the sluice writes the hour into the book beside the door.\n"
)
QUESTION: Final = "What colour is the lamp above the sluice?"
FORMS: Final = ("html", "pdf")


async def rehearse(settings: Settings, done: Callable[[str], None]) -> None:
    """Do it all; `done` is told each step that came to a good end. Raises `DomicileError` for one that did not."""
    zone = settings.here.zone
    with office(settings) as accounts:
        accounts.ensure_tenant(TENANT, ceiling=(zone,), zone=zone)
    principal = Principal(
        id="rehearsal", tenant=TENANT, activities=ACTIVITIES, scopes=frozenset(SCOPES), zone=settings.here.zone
    )
    async with domicile(settings, work=False) as house:
        done("start")
        claim = Claim(name="sluice.md", jurisdictions=frozenset({zone}), residency=frozenset({zone}), personal=False)
        taken = await house.intake.receive(_blocks(), claim, principal)
        if not isinstance(taken, Taken):
            raise HomeError("the rules in force refuse the rehearsal's text", hint="domicile policy check")
        document = taken.document.id
        await house.worker.drain()
        entry = await house.catalogue.get(principal, document)
        if entry.document.state is not State.LIVE:
            raise HomeError(f"the rehearsal's text came to be {entry.document.state}", hint="domicile doctor")
        done("ingest")
        answer = await house.answering.answer(principal, Question(QUESTION))
        if not isinstance(answer, Answer) or "red" not in answer.text:
            raise HomeError("the rehearsal's question found no answer", hint="domicile doctor")
        done("ask")
        for form in FORMS:
            await house.reporting.file(TENANT, None, None, form, requested_by=principal.id)
        done("report")
        await house.erasure.erase(principal, document)
        await house.worker.drain()
        if (await house.erasure.certificate(TENANT, document))["state"] != "complete":
            raise HomeError("the rehearsal's text was not erased", hint="domicile doctor")
        done("erase")


async def _blocks() -> AsyncIterator[bytes]:
    yield TEXT.encode()
