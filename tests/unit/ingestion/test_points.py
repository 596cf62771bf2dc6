"""A Passage has one vector: of its text, or the mean of the windows that the model can read."""

import numpy as np

from ingestion.points import embed
from ingestion.splitter import Piece, windows
from residency.route import Action
from tests.doubles.ingesting import HashEmbedder
from tests.doubles.routes import route_for


def piece(text: str, no: int = 0) -> Piece:
    return Piece(no, text, 0, len(text), 1, "Gates", "en")


async def test_a_long_passage_gets_the_mean_of_its_windows_and_a_short_one_its_own_vector() -> None:
    embedder = HashEmbedder("fra", max_tokens=20)
    to_embed = route_for(Action.EMBED, "fra")
    long = piece("The east gate opens at six. " * 4 + "Dogs wait in the yard until noon. " * 4, 1)
    short = piece("Friday is calm.")
    vectors = await embed(embedder, to_embed, [short, long, short])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    [own] = await embedder.embed(to_embed, ["Gates\nFriday is calm."])
    assert np.array_equal(vectors[0], own)
    assert np.array_equal(vectors[2], own)
    cut = windows(long, count_tokens=embedder.count_tokens, max_tokens=20)
    assert len(cut) > 1
    parts = await embedder.embed(to_embed, [text for text, _ in cut])
    mean = np.array([tokens for _, tokens in cut], dtype=np.float32) @ parts
    assert np.allclose(vectors[1], mean / np.linalg.norm(mean), atol=1e-6)
