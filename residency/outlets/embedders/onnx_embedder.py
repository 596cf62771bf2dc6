"""OnnxEmbedder: a verified model on the CPU through onnxruntime, without torch.

The graph is what `onnx_export` wrote. Rules kept here: onnxruntime is handed the very bytes that were hashed, never a
path, so nothing is swapped between check and load and no external data is read; no custom-op library is registered; the
self-test passes before the embedder opens; nothing is imported before `models.verify` found the environment silent.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from residency.errors import ModelError
from residency.outlets.embedders import selftest
from residency.outlets.embedders.batching import Tokens
from residency.outlets.embedders.body import RunnerEmbedder, physical_cores
from residency.outlets.embedders.onnx_int8 import SUFFIX
from residency.outlets.models import VerifiedModel
from residency.ports import Vectors

FORMAT: Final = 1
"""Version of the exported graph and its record; another one is exported anew."""
LEAST: Final = {"fp32": selftest.EXACT, "int8": selftest.COARSE}
"""Least cosine of the self-test by precision."""
MOST_TOKENS: Final = 2_048
"""Rows × longest of one batch on a CPU; the lanes cut earlier when that is more than 50 ms."""


class OnnxRunner:
    """A loaded graph and its tokenizer. `graph` holds the whole model; `threads` are intra-op threads."""

    def __init__(self, model: VerifiedModel, graph: bytes, *, threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads wait for each other by spinning, which halves a question's time, but for 50 µs and within a run only:
        # longer spinning triples it where others use the cores as well, and idle threads must leave them alone.
        # Small blocks of work let a thread take what another, held up by others, has not begun.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.dynamic_block_base", "4")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_str(model.read("tokenizer.json").decode())
        # files of sentence-transformers come with cutting and padding to 128 switched on
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of each text, special tokens included, never cut."""
        if len(texts) == 1:  # a question: not worth waking the tokenizer's own threads
            return [self._tokenizer.encode(texts[0]).ids]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def run(self, ids: Tokens, mask: Tokens) -> Vectors:
        """Give float32 (n, d), rows of unit length, for int64 ids and mask of shape (n, t)."""
        vectors: Vectors = self._session.run(["vectors"], {"ids": ids, "mask": mask})[0]
        return vectors

    def check(self, reference: Vectors, *, least: float = selftest.EXACT) -> None:
        """Embed the frozen sentences, one batch each, and raise `ModelError` unless they meet `reference`."""
        rows = []
        for text_ids in self.tokens(selftest.FROZEN):
            ids = np.array([text_ids], np.int64)
            rows.append(self.run(ids, np.ones_like(ids))[0])
        selftest.check(np.stack(rows), reference, least=least)


class OnnxEmbedder(RunnerEmbedder):
    """An `Embedder` on the CPU. `path` is what `onnx_export.export` gave for this very model and precision.

    In `int8` its digest is another: those vectors are never laid beside exact ones.
    """

    def __init__(
        self, model: VerifiedModel, path: Path, *, site: str, threads: int = 0, precision: str = "fp32"
    ) -> None:
        """Load in about 0.3 s; `threads` 0 means one per physical core. Raises `ModelError` unless all checks hold."""
        graph, reference = read_export(model, path, precision)
        runner = OnnxRunner(model, graph, threads=threads or physical_cores())
        runner.check(reference, least=LEAST[precision])
        super().__init__(model, runner, site=site, most_tokens=MOST_TOKENS)
        if precision == "int8":
            self.digest += SUFFIX


def read_export(model: VerifiedModel, path: Path, precision: str = "fp32") -> tuple[bytes, Vectors]:
    """Read the graph and the self-test vectors, once, as the bytes that are hashed against the record beside them.

    Raises `ModelError` when they are absent, changed, of another model or of another format.
    """
    try:
        record: dict[str, Any] = json.loads((path.parent / "export.json").read_bytes())
        graph, stored = path.read_bytes(), (path.parent / "reference.f32").read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError("the exported model is absent or broken", hint="export it again: `domicile init`") from error
    if record != export_record(model, graph, stored, precision):
        raise ModelError("the exported model is not the one recorded", hint="delete its folder and export it again")
    return graph, selftest.unpack(stored)


def export_record(model: VerifiedModel, graph: bytes, reference: bytes, precision: str = "fp32") -> dict[str, Any]:
    """Give the record that stands beside an export: whose it is, and the hashes of its two files."""
    return {
        "format": FORMAT,
        "model": model.digest,
        "graph": hashlib.sha256(graph).hexdigest(),
        "reference": hashlib.sha256(reference).hexdigest(),
    } | ({} if precision == "fp32" else {"precision": precision})
