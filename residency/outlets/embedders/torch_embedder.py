"""TorchEmbedder: a verified model through sentence-transformers, on a GPU or as the reference on a CPU.

Rules kept here: loaded by path, never by id, with no code of its own; text models only, since others fetch what a text
points to; torch is imported when an embedder is made and not before. Unlike the ONNX body it must let the library read
the folder itself, so between check and load it trusts the folder's owner.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from residency.errors import ModelError
from residency.outlets.embedders import selftest
from residency.outlets.embedders.batching import Tokens
from residency.outlets.embedders.body import RunnerEmbedder
from residency.outlets.models import VerifiedModel
from residency.ports import Vectors

MOST_TOKENS_CPU: Final = 2_048
MOST_TOKENS_GPU: Final = 16_384


class TorchRunner:
    """A loaded sentence-transformers model; `device` is `auto`, `cpu` or a CUDA device. bfloat16 on CUDA."""

    def __init__(self, model: VerifiedModel, *, device: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._torch: Any = torch
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.coarse = self.device.startswith("cuda")
        self._model: Any = SentenceTransformer(
            str(model.path),
            device=self.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.bfloat16 if self.coarse else torch.float32},
        )
        if list(self._model.modalities) != ["text"]:
            raise ModelError("the model reads more than text", hint="use a text embedding model")
        self._model.eval()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of each text, special tokens included, never cut."""
        found: list[list[int]] = self._model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return found

    def run(self, ids: Tokens, mask: Tokens) -> Vectors:
        """Give float32 (n, d), rows of unit length; halves a batch that does not fit the card's memory."""
        torch = self._torch
        try:
            with torch.inference_mode():
                place = {"input_ids": self._there(ids), "attention_mask": self._there(mask)}
                vectors = torch.nn.functional.normalize(self._model(place)["sentence_embedding"].float(), dim=-1)
                found: Vectors = vectors.cpu().numpy()
                return found
        except torch.OutOfMemoryError:
            if len(ids) == 1:
                raise
        half = len(ids) // 2
        return np.concatenate([self.run(ids[:half], mask[:half]), self.run(ids[half:], mask[half:])])

    def _there(self, tokens: Tokens) -> Any:
        """Copy to the device; from pinned memory where that lets the copy overlap."""
        found = self._torch.from_numpy(tokens)
        return found.pin_memory().to(self.device, non_blocking=True) if self.coarse else found

    def frozen(self) -> Vectors:
        """Embed the frozen sentences, one batch each."""
        rows = []
        for text_ids in self.tokens(selftest.FROZEN):
            ids = np.array([text_ids], np.int64)
            rows.append(self.run(ids, np.ones_like(ids))[0])
        return np.stack(rows)


class TorchEmbedder(RunnerEmbedder):
    """An `Embedder` through sentence-transformers; `auto` takes a CUDA card when there is one."""

    def __init__(self, model: VerifiedModel, *, site: str, device: str = "auto") -> None:
        """Load in some seconds, most of it torch itself. Raises `ModelError` when the self-test fails."""
        runner = TorchRunner(model, device=device)
        vectors = runner.frozen()
        known = selftest.shipped(model.digest)
        least = selftest.COARSE if runner.coarse else selftest.EXACT
        selftest.check(vectors, vectors if known is None else known, least=least)
        most = MOST_TOKENS_GPU if runner.coarse else MOST_TOKENS_CPU
        super().__init__(model, runner, site=site, most_tokens=most)


def reference(model: VerifiedModel) -> Vectors:
    """Give what the frozen sentences embed to, float32 on the CPU; for the self-test of an export."""
    return TorchRunner(model, device="cpu").frozen()
