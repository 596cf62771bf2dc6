"""What every body of the Embedder port must do; both give the vectors of the same model."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from residency.errors import ModelError, RouteError, SiteError
from residency.journal import recording
from residency.outlets import models
from residency.outlets.embedders import selftest
from residency.outlets.embedders.body import RunnerEmbedder
from residency.outlets.embedders.remembered import Remembered
from residency.outlets.models import VerifiedModel
from residency.route import Action, Route
from tests.doubles.routes import route_for

SITE = "de-frankfurt"
TEXTS = (
    "Invoices are kept for ten years.",
    "A crane",
    "Die Sicherungen liegen verschlüsselt in Frankfurt und werden jede Nacht geprüft. " * 8,
    "",
    "Qui a accès à la clé ?",
)


def embedding() -> Route:
    return route_for(Action.EMBED, SITE)


@pytest.fixture(scope="module")
def bodies(bundled_model: VerifiedModel, onnx_model: Path) -> Iterator[Callable[[str], RunnerEmbedder]]:
    """Each body, loaded when first asked for."""
    made: dict[str, RunnerEmbedder] = {}

    def body(name: str) -> RunnerEmbedder:
        if name not in made and name == "onnx":
            from residency.outlets.embedders.onnx_embedder import OnnxEmbedder

            made[name] = OnnxEmbedder(bundled_model, onnx_model, site=SITE, threads=1)
        elif name not in made:
            from residency.outlets.embedders.torch_embedder import TorchEmbedder

            made[name] = TorchEmbedder(bundled_model, site=SITE, device="cpu")
        return made[name]

    yield body
    for embedder in made.values():
        asyncio.run(embedder.aclose())


@pytest.fixture(params=["onnx", "torch"])
def embedder(request: pytest.FixtureRequest, bodies: Callable[[str], RunnerEmbedder]) -> RunnerEmbedder:
    return bodies(request.param)


async def test_vectors_are_float32_and_of_unit_length(embedder: RunnerEmbedder) -> None:
    vectors = await embedder.embed(embedding(), TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


async def test_both_bodies_give_the_same_vectors(bodies: Callable[[str], RunnerEmbedder]) -> None:
    onnx = await bodies("onnx").embed(embedding(), TEXTS)
    torch = await bodies("torch").embed(embedding(), TEXTS)
    assert np.abs(onnx - torch).max() < 1e-4


async def test_a_vector_stands_where_its_text_stood_whatever_the_batch(embedder: RunnerEmbedder) -> None:
    together = await embedder.embed(embedding(), TEXTS)
    for number, text in enumerate(TEXTS):
        alone = await embedder.embed(embedding(), [text], question=True)
        assert float(alone[0] @ together[number]) > 1 - 1e-4


async def test_sense_is_nearer_than_nonsense(embedder: RunnerEmbedder) -> None:
    asked, right, wrong = await embedder.embed(
        embedding(), ["How long do we keep bills?", "Invoices are kept for ten years.", "The crane has a worn brake."]
    )
    assert asked @ right > asked @ wrong + 0.1


async def test_no_texts_give_no_vectors(embedder: RunnerEmbedder) -> None:
    assert (await embedder.embed(embedding(), [])).shape == (0, embedder.dimension)


async def test_a_text_beyond_the_limit_is_refused_and_never_cut(embedder: RunnerEmbedder) -> None:
    fits = "word " * (embedder.max_tokens - 2)
    assert embedder.count_tokens(fits) == embedder.max_tokens
    await embedder.embed(embedding(), [fits])
    with pytest.raises(ModelError, match="text 1 of 2 has 257 tokens, the model reads 256") as caught:
        await embedder.embed(embedding(), ["short", f"{fits} word"])
    assert "word word" not in str(caught.value)


async def test_both_bodies_count_the_same_tokens(bodies: Callable[[str], RunnerEmbedder]) -> None:
    for text in (*TEXTS, "日本語 🚢 <s> [SEP]", "word " * 600):
        assert bodies("onnx").count_tokens(text) == bodies("torch").count_tokens(text)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: route_for(Action.SEARCH, SITE),
        lambda: route_for(Action.EMBED, "us-virginia"),
        lambda: route_for(Action.EMBED, SITE, seconds=-1),
    ],
    ids=["another action", "another Site", "expired"],
)
async def test_a_wrong_route_is_refused(embedder: RunnerEmbedder, wrong: Callable[[], Route]) -> None:
    with pytest.raises(RouteError):
        await embedder.embed(wrong(), ["text"])


async def test_every_pass_is_recorded(embedder: RunnerEmbedder) -> None:
    with recording() as touches:
        await embedder.embed(embedding(), ["zwölf", "drei"])
    assert [(touch.action, touch.kind, touch.count, touch.bytes, touch.peer) for touch in touches] == [
        (Action.EMBED, "embedder", 2, 10, "local")
    ]


async def test_the_digest_names_the_model_and_not_the_body(
    embedder: RunnerEmbedder, bundled_model: VerifiedModel
) -> None:
    assert embedder.digest == bundled_model.digest


async def test_a_closed_embedder_says_so(bundled_model: VerifiedModel, onnx_model: Path) -> None:
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder

    closed = OnnxEmbedder(bundled_model, onnx_model, site=SITE, threads=1)
    await closed.aclose()
    with pytest.raises(SiteError, match="closed"):
        await closed.embed(embedding(), ["text"])


async def test_a_question_is_known_again_for_its_tenant_until_a_key_goes(
    bundled_model: VerifiedModel, onnx_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder

    embedder = OnnxEmbedder(bundled_model, onnx_model, site=SITE, threads=1)
    runs: list[int] = []
    real = embedder._lanes._run
    monkeypatch.setattr(embedder._lanes, "_run", lambda ids, mask: (runs.append(len(ids)), real(ids, mask))[1])
    first = await embedder.embed(embedding(), ["Who has the key?"], question=True)
    with recording() as touches:
        again = await embedder.embed(embedding(), ["Who has the key?"], question=True)
    assert (again == first).all() and runs == [1] and [touch.kind for touch in touches] == ["embedder"]
    again[:] = 0.0  # what one asker does to his copy is no other's matter
    assert (await embedder.embed(embedding(), ["Who has the key?"], question=True) == first).all()
    with pytest.raises(RouteError):  # ruled on every time
        await embedder.embed(route_for(Action.EMBED, SITE, seconds=-1), ["Who has the key?"], question=True)
    await embedder.embed(embedding(), ["Who has the key?"])  # as a passage
    await embedder.embed(route_for(Action.EMBED, SITE, tenant="another"), ["Who has the key?"], question=True)
    assert runs == [1, 1, 1]
    assert b"Who has" not in repr(embedder._remembered.__dict__).encode()
    embedder.forget()
    await embedder.embed(embedding(), ["Who has the key?"], question=True)
    assert runs == [1, 1, 1, 1]
    await embedder.aclose()


def test_the_memory_of_questions_is_bounded_and_short() -> None:
    vector = np.ones((1, 2), np.float32)
    held = Remembered(most=2)
    keys = [held.key("t", SITE, text) for text in ("a", "b", "c")]
    for key in keys:
        held.put(key, vector)
    assert len(held) == 2 and held.get(keys[0]) is None and held.get(keys[2]) is not None
    assert len(set(keys) | {held.key("u", SITE, "a"), held.key("t", "x", "a"), Remembered().key("t", SITE, "a")}) == 6
    brief = Remembered(seconds=-1.0)
    brief.put(keys[0], vector)
    assert brief.get(keys[0]) is None and len(brief) == 0


async def test_eight_bits_are_near_and_have_a_digest_of_their_own(
    bodies: Callable[[str], RunnerEmbedder], bundled_model: VerifiedModel, onnx_model: Path
) -> None:
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder, read_export
    from residency.outlets.embedders.onnx_export import export

    path = export(bundled_model, onnx_model.parent.with_name(onnx_model.parent.name + "-int8"), "int8")
    coarse = OnnxEmbedder(bundled_model, path, site=SITE, threads=1, precision="int8")
    written = [text for text in TEXTS if text]
    exact = await bodies("onnx").embed(embedding(), written)
    near = await coarse.embed(embedding(), written)
    assert (near * exact).sum(axis=1).min() > 0.99
    assert coarse.digest == f"{bundled_model.digest}+int8"
    assert len(read_export(bundled_model, path, "int8")[0]) < 40_000_000  # of 90
    for other in ("fp32", "int8"):  # neither is taken for the other
        with pytest.raises(ModelError, match="not the one recorded"):
            OnnxEmbedder(bundled_model, path if other == "fp32" else onnx_model, site=SITE, precision=other)
    await coarse.aclose()


# --- the export -----------------------------------------------------------------------------------------------------


def test_the_stored_vectors_are_those_of_sentence_transformers(
    bodies: Callable[[str], RunnerEmbedder], bundled_model: VerifiedModel
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(bundled_model.path), device="cpu", local_files_only=True)
    expected = model.encode(list(selftest.FROZEN), normalize_embeddings=True)
    shipped = selftest.shipped(bundled_model.digest)
    assert shipped is not None
    assert np.abs(shipped - expected).max() < 1e-5


def copied(export: Path, folder: Path) -> Path:
    """Copy an export; the graph itself is too large to copy for each test, so it is linked."""
    folder.mkdir()
    for path in export.parent.iterdir():
        (folder / path.name).symlink_to(path)
    return folder / export.name


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.onnx", "reference.f32", "export.json"])
@pytest.mark.parametrize("damage", ["absent", "other bytes"])
def test_a_damaged_export_is_not_loaded(
    bundled_model: VerifiedModel, onnx_model: Path, tmp_path: Path, name: str, damage: str
) -> None:
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder

    path = copied(onnx_model, tmp_path / "export")
    file = path.parent / name
    if damage == "absent":
        file.unlink()
    else:
        replace(file, b"{}")
    with pytest.raises(ModelError, match="exported model"):
        OnnxEmbedder(bundled_model, path, site=SITE)


def test_an_export_that_embeds_otherwise_keeps_the_embedder_closed(
    bundled_model: VerifiedModel, onnx_model: Path, tmp_path: Path
) -> None:
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder, export_record

    path = copied(onnx_model, tmp_path / "export")
    shipped = selftest.shipped(bundled_model.digest)
    assert shipped is not None
    other = np.roll(shipped, 1, axis=0).tobytes()
    replace(path.parent / "reference.f32", other)
    record = export_record(bundled_model, path.read_bytes(), other)
    replace(path.parent / "export.json", json.dumps(record).encode())
    with pytest.raises(ModelError, match="self-test missed"):
        OnnxEmbedder(bundled_model, path, site=SITE)


def test_the_same_weights_give_the_same_graph(bundled_model: VerifiedModel, onnx_model: Path) -> None:
    from residency.outlets.embedders.onnx_graph import build

    assert build(bundled_model) == onnx_model.read_bytes()


def test_a_whole_export_is_left_alone_and_a_broken_one_made_anew(
    bundled_model: VerifiedModel, onnx_model: Path, tmp_path: Path
) -> None:
    from residency.outlets.embedders.onnx_export import export

    before = onnx_model.stat().st_mtime_ns
    assert export(bundled_model, onnx_model.parent) == onnx_model
    assert onnx_model.stat().st_mtime_ns == before
    path = export(bundled_model, tmp_path / "new")
    (path.parent / "reference.f32").write_bytes(b"")
    assert export(bundled_model, tmp_path / "new") == path
    assert sorted(file.name for file in path.parent.iterdir()) == ["export.json", "model.onnx", "reference.f32"]


def test_a_family_that_the_graph_does_not_speak_is_refused(
    bundled_model: VerifiedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residency.outlets.embedders.onnx_graph import build

    settings = {**bundled_model.settings("config.json"), "model_type": "mpnet"}
    monkeypatch.setattr(VerifiedModel, "settings", lambda _, name: settings if name == "config.json" else {})
    with pytest.raises(ModelError, match="speaks no mpnet"):
        build(bundled_model)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
async def test_another_model_of_the_family_is_exported_against_its_own_reference(
    bundled_model: VerifiedModel, tmp_path: Path, pooling: str
) -> None:
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder
    from residency.outlets.embedders.onnx_export import export
    from residency.outlets.embedders.torch_embedder import TorchEmbedder

    model = random_model(bundled_model, tmp_path / "model", pooling)
    assert selftest.shipped(model.digest) is None
    onnx = OnnxEmbedder(model, export(model, tmp_path / "export"), site=SITE, threads=1)
    torch = TorchEmbedder(model, site=SITE, device="cpu")
    for question in (True, False):
        vectors = [await body.embed(embedding(), TEXTS, question=question) for body in (onnx, torch)]
        assert np.abs(vectors[0] - vectors[1]).max() < 1e-4
    assert onnx.count_tokens("word") == torch.count_tokens("word") == 5  # its prompt counts too
    asked, passage = await onnx.embed(embedding(), ["x"], question=True), await onnx.embed(embedding(), ["x"])
    assert np.abs(asked - passage).max() > 1e-3
    await asyncio.gather(onnx.aclose(), torch.aclose())


def random_model(bundled: VerifiedModel, folder: Path, pooling: str) -> VerifiedModel:
    """Make a small model of random weights that wants prompts, with the tokenizer of the bundled one."""
    from transformers import BertConfig, BertModel

    folder.mkdir()
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.3
    )
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "modules.json"):
        (folder / name).write_bytes(bundled.read(name))
    (folder / "1_Pooling").mkdir()
    modes = {"word_embedding_dimension": 32} | {
        f"pooling_mode_{mode}": mode.startswith(pooling) for mode in ("cls_token", "mean_tokens", "max_tokens")
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512}))
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return models.verify(folder, models.digest_of(models.manifest(folder)))


def test_the_onnx_body_never_imports_torch(onnx_model: Path) -> None:
    code = (
        "from residency.silence import silence; silence()\n"
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from residency.outlets import models\n"
        "from residency.outlets.embedders import onnx_embedder, onnx_export, torch_embedder\n"
        "assert not {'torch', 'onnxruntime', 'onnx', 'transformers', 'tokenizers'} & set(sys.modules)\n"
        f"body = onnx_embedder.OnnxEmbedder(models.bundled(), Path({str(onnx_model)!r}), site='x', threads=1)\n"
        "assert body.count_tokens('one two') == 4\n"
        "asyncio.run(body.aclose())\n"
        "assert not {'torch', 'onnx', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
