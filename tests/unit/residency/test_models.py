"""A model folder is loaded only when every byte of it is the pinned one and none of it can run code."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from residency.errors import ModelError
from residency.outlets import models

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small, honest model folder."""
    root = tmp_path / "model"
    (root / "1_Pooling").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(save({"w": np.ones(4, np.float32)}))
    (root / "config.json").write_text(json.dumps({"hidden_size": 4, "max_position_embeddings": 512}))
    (root / "modules.json").write_text(json.dumps(MODULES))
    (root / "1_Pooling" / "config.json").write_text("{}")
    (root / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"auto_map": 7}}}))
    (root / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    return root


def pin(root: Path) -> str:
    return models.digest_of(models.manifest(root))


def test_an_honest_folder_is_verified_and_known_by_its_facts(folder: Path) -> None:
    model = models.verify(folder, pin(folder))
    assert (model.dimension, model.max_tokens) == (4, 128)
    assert len(model.files) == 6


def test_the_digest_is_what_sha256sum_prints(folder: Path) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    assert pin(folder) == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "pickled"),
        ("pytorch_model-00001-of-00002.bin", "pickled"),
        ("weights.pt", "pickled"),
        ("weights.pth", "pickled"),
        ("optimizer.pkl", "pickled"),
        ("last.ckpt", "pickled"),
        ("tf_model.h5", "pickled"),
        ("modeling_evil.py", "code"),
        ("1_Pooling/modeling_evil.PY", "code"),
        ("libcustom.so", "code"),
        ("strange.exe", "no known kind"),
    ],
)
def test_a_file_that_could_run_code_is_refused_by_name_even_when_pinned(folder: Path, name: str, why: str) -> None:
    digest = pin(folder)
    (folder / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=why) as caught:
        models.verify(folder, digest)
    assert Path(name).name in str(caught.value)


def test_an_unlisted_file_is_refused(folder: Path) -> None:
    digest = pin(folder)
    (folder / "extra.json").write_text("{}")
    with pytest.raises(ModelError, match="not the pinned one"):
        models.verify(folder, digest)


def test_a_missing_file_is_refused(folder: Path) -> None:
    digest = pin(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="not the pinned one"):
        models.verify(folder, digest)


def test_one_other_byte_is_refused(folder: Path) -> None:
    digest = pin(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="not the pinned one"):
        models.verify(folder, digest)


@pytest.mark.parametrize("target", ["file", "folder"])
def test_a_link_is_refused(folder: Path, tmp_path: Path, target: str) -> None:
    digest = pin(folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere.json").write_text("{}")
    (folder / "linked.json").symlink_to(tmp_path / ("elsewhere" if target == "folder" else "elsewhere.json"))
    with pytest.raises(ModelError, match="is a link"):
        models.verify(folder, digest)


def test_a_pipe_is_refused_without_being_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(ModelError, match="no regular file"):
        models.verify(folder, "sha256:0")


def test_a_folder_without_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors"):
        models.verify(folder, "sha256:0")


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        models.verify(tmp_path / "nowhere", "sha256:0")


@pytest.mark.parametrize(
    "settings",
    [{"auto_map": {"AutoModel": "modeling_evil.Evil"}}, {"text": [{"auto_map": {}}]}],
    ids=["outermost", "nested"],
)
def test_settings_that_name_code_are_refused_even_when_pinned(folder: Path, settings: object) -> None:
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="auto_map"):
        models.verify(folder, pin(folder))


@pytest.mark.parametrize(
    "modules",
    [
        [{"path": "", "type": "modeling_evil.Evil"}],
        [{"path": "", "type": "sentence_transformers.models.Dense"}],  # imports whatever its config names
        [{"path": "", "type": "sentence_transformers.evil.os.Transformer; x"}],
        [{"path": "../elsewhere", "type": "sentence_transformers.models.Pooling"}],
        [{"path": "/etc", "type": "sentence_transformers.models.Pooling"}],
        {"0": "sentence_transformers.models.Transformer"},
    ],
)
def test_foreign_modules_are_refused_even_when_pinned(folder: Path, modules: object) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"modules\.json names a foreign"):
        models.verify(folder, pin(folder))


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_settings_that_are_no_json_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="no JSON"):
        models.verify(folder, pin(folder))


@pytest.mark.parametrize("digest", [None, ""])
def test_without_a_pinned_digest_the_hint_gives_the_one_seen(folder: Path, digest: str | None) -> None:
    with pytest.raises(ModelError, match="no digest is pinned") as caught:
        models.verify(folder, digest)
    assert pin(folder) in caught.value.hint


def test_nothing_is_loaded_in_an_environment_that_is_not_silent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    with pytest.raises(ModelError, match="ORT_DISABLE_TELEMETRY"):
        models.verify(folder, pin(folder))


def test_a_file_swapped_after_the_check_is_not_read(folder: Path) -> None:
    model = models.verify(folder, pin(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="changed after"):
        model.read("config.json")


@pytest.mark.parametrize(
    "forge",
    [
        lambda model: models.VerifiedModel(model.path, model.digest, model.files),
        lambda model: models.VerifiedModel(model.path, model.digest, model.files, object()),
        lambda model: dataclasses.replace(model, digest="sha256:0", mint=None),
    ],
)
def test_a_verified_model_is_made_nowhere_else(
    folder: Path, forge: Callable[[models.VerifiedModel], models.VerifiedModel]
) -> None:
    model = models.verify(folder, pin(folder))
    with pytest.raises(ModelError, match="made by"):
        forge(model)


def test_prompts_of_the_model_are_known(folder: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    model = models.verify(folder, pin(folder))
    assert (model.prompt(question=True), model.prompt(question=False)) == ("query: ", "passage: ")


def test_the_bundled_model_is_the_published_one(bundled_model: models.VerifiedModel) -> None:
    assert bundled_model.digest == models.BUNDLED_DIGEST
    assert bundled_model.files["model.safetensors"] == models.BUNDLED_WEIGHTS
    assert (bundled_model.dimension, bundled_model.max_tokens) == (384, 256)
