"""Export at set-up: a verified BERT-family model becomes one ONNX file that needs neither torch nor its folder's code.

Before the file gets its name it embeds the frozen sentences and must meet vectors made by sentence-transformers; those
stand beside it, and every load repeats the test. `export.json`, written last, vouches for both by their hashes.
"""

import json
import os
from pathlib import Path

from residency.errors import ModelError
from residency.outlets.embedders import selftest
from residency.outlets.embedders.body import physical_cores
from residency.outlets.embedders.onnx_embedder import LEAST, OnnxRunner, export_record, read_export
from residency.outlets.embedders.onnx_graph import build
from residency.outlets.embedders.onnx_int8 import quantised
from residency.outlets.models import VerifiedModel
from residency.ports import Vectors


def export(model: VerifiedModel, folder: Path, precision: str = "fp32") -> Path:
    """Write `model.onnx`, `reference.f32` and `export.json`, unless a whole export is there; give the first's path.

    `precision` is `fp32` or `int8`; each has a folder of its own.
    About two seconds for the bundled model, five in 8 bits; another model also loads torch once, for its self-test.
    Raises `ModelError` for a family that the graph does not speak, or when the sentences miss their vectors.
    """
    path = folder / "model.onnx"
    if _whole(model, path, precision):
        return path
    graph, reference = build(model), _reference(model)
    if precision == "int8":
        graph = quantised(graph)
    OnnxRunner(model, graph, threads=physical_cores()).check(reference, least=LEAST[precision])
    stored = reference.astype("<f4").tobytes()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, graph)
    _write(folder / "reference.f32", stored)
    _write(folder / "export.json", json.dumps(export_record(model, graph, stored, precision), indent=1).encode())
    return path


def _whole(model: VerifiedModel, path: Path, precision: str) -> bool:
    """Say whether a whole export of this model, format and precision is there."""
    try:
        read_export(model, path, precision)
    except ModelError:
        return False
    return True


def _reference(model: VerifiedModel) -> Vectors:
    """Give the vectors of the frozen sentences as sentence-transformers makes them: shipped, or made now."""
    known = selftest.shipped(model.digest)
    if known is not None:
        return known
    from residency.outlets.embedders.torch_embedder import reference

    return reference(model)


def _write(path: Path, data: bytes) -> None:
    """Write aside, fsync, rename, fsync the folder."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
