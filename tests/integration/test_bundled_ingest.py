"""One Document all the way with the bundled model: what was asked for is found, and opens to the exact words."""

from pathlib import Path

from ingestion.states import State
from residency.decision import Ask, Permit
from residency.envelope import PassageSealer
from residency.outlets.embedders.onnx_embedder import OnnxEmbedder
from residency.outlets.models import VerifiedModel
from residency.ports import PointFilter, ShardQuery
from residency.route import Action
from tests.doubles.ingesting import APP, ingesting, site
from tests.doubles.looking import dek_of, keys_of, route

TOPICS = (
    "Tenants give notice of termination in writing, three months before the end of a quarter.",
    "The stairs are cleaned once a week, on Saturdays before noon, by each tenant in turn.",
    "Bicycles are kept in the cellar; the yard stays free for the fire brigade.",
    "The heating period begins in October and ends in April; radiators are bled by the caretaker.",
)


async def test_the_bundled_model_finds_a_passage_through_the_sealed_index(
    tmp_path: Path, bundled_model: VerifiedModel, onnx_model: Path
) -> None:
    embedder = OnnxEmbedder(bundled_model, onnx_model, site="fra", threads=1)
    text = "\n\n".join(
        f"# Rule {n}\n\n{topic} " + "This rule binds every household. " * 3 for n, topic in enumerate(TOPICS)
    )
    async with ingesting(tmp_path, fleet=site("fra", "DE", "DE"), embedder=embedder) as house:
        taken = await house.taken("house-rules.md", text.encode())
        await house.worker.drain()
        found = house.get(taken.document.id)
        assert found.state is State.LIVE and found.passages == len(TOPICS) and found.language == "en"

        keys = await keys_of(house, found)
        decision = house.engine.decide(Ask(APP, Action.EMBED, "fra", (found.tag,), "indexing"))
        assert isinstance(decision, Permit)
        question = "When is the central heating switched on?"
        asked = (await embedder.embed(decision.route, [question], question=True))[0]
        query = ShardQuery(
            PointFilter((keys.owner,), classes=(found.tag_class,)),
            keys.rotate(asked),
            dict(keys.lexicon.question(question, ["en"])),
            limit=4,
        )
        hits = (await house.shards["fra"].search(route(house, Action.SEARCH, found), query)).hits
        best = max(hits, key=lambda hit: hit.dense)
        sealer = PassageSealer(
            await dek_of(house, found), collection=bytes.fromhex(found.collection), document=bytes.fromhex(found.id),
            version=1, classification=1,
        )  # fmt: skip
        body = sealer.open(best.payload["n"], best.id, best.payload["s"])
        assert "heating period begins in October" in body.text
        assert (body.name, body.heading) == ("house-rules.md", "Rule 3")
    await embedder.aclose()
