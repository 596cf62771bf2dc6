"""The ONNX graph of a BERT-family model, spelled out layer by layer from its safetensors weights.

No torch is imported and nothing is traced, so an export takes a second and the same weights give the same bytes with
one version of `onnx`. Pooling and normalisation are part of the graph: a run gives unit vectors.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from residency.errors import ModelError
from residency.outlets.models import VerifiedModel

OPSET: Final = 20


def build(model: VerifiedModel) -> bytes:
    """Write the graph: int64 `ids` (n, t) and `mask` (n, t) in, float32 `vectors` (n, d) of unit length out.

    Source: Devlin et al., arXiv:1810.04805, as transformers' BertModel computes it; erf GELU; post-layer-norm.
    """
    settings = model.settings("config.json")
    family, activation = settings.get("model_type"), settings.get("hidden_act")
    positions = settings.get("position_embedding_type", "absolute")
    if (family, activation, positions) != ("bert", "gelu", "absolute"):
        raise ModelError(
            f"the ONNX export speaks no {family} with {activation} and {positions} positions",
            hint='set runtime = "torch" for this model',
        )
    return _Graph(model, settings).bytes()


class _Graph:
    """Collects nodes and weights while the model is spelled out layer by layer."""

    def __init__(self, model: VerifiedModel, settings: dict[str, Any]) -> None:
        from safetensors.numpy import load as load_weights

        weights = load_weights(model.read("model.safetensors"))
        self.weights = {name.removeprefix("bert."): np.asarray(value, np.float32) for name, value in weights.items()}
        self.settings = settings
        self.pooling = model.settings("1_Pooling/config.json")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def put(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def do(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output and give that output's name."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def dense(self, x: str, name: str) -> str:
        """Multiply by a weight matrix and add its bias."""
        weight = self.put(f"{name}.w", self.weights[f"{name}.weight"].T)
        product = self.do("MatMul", [x, weight], f"{name}.product")
        return self.do("Add", [product, self.put(f"{name}.b", self.weights[f"{name}.bias"])], f"{name}.sum")

    def norm(self, x: str, name: str) -> str:
        """Normalise a layer."""
        scale = self.put(f"{name}.w", self.weights[f"{name}.weight"])
        bias = self.put(f"{name}.b", self.weights[f"{name}.bias"])
        return self.do(
            "LayerNormalization", [x, scale, bias], f"{name}.out", axis=-1, epsilon=self.settings["layer_norm_eps"]
        )

    def embeddings(self) -> str:
        """Add up word, position and type vectors."""
        words = self.put("words", self.weights["embeddings.word_embeddings.weight"])
        # all tokens are of type 0, so its vector moves into the positions
        learnt = self.weights["embeddings.position_embeddings.weight"]
        places = self.put("places", learnt + self.weights["embeddings.token_type_embeddings.weight"][0])
        length = self.do("Shape", ["ids"], "length", start=1, end=2)
        start, axis = self.put("zero", np.zeros(1, np.int64)), self.put("axis", np.zeros(1, np.int64))
        placed = self.do("Slice", [places, start, length, axis], "placed")
        looked_up = self.do("Gather", [words, "ids"], "looked_up")
        return self.norm(self.do("Add", [looked_up, placed], "embedded"), "embeddings.LayerNorm")

    def attention(self, x: str, name: str) -> str:
        """Attend: the three projections in one product, then onnxruntime's own kernel."""
        parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self.weights[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        return self.do(
            "Attention",
            [x, self.put(f"{name}.w", weight), self.put(f"{name}.b", bias), "mask32"],
            f"{name}.heads",
            domain="com.microsoft",
            num_heads=self.settings["num_attention_heads"],
        )

    def layer(self, x: str, name: str) -> str:
        """One encoder layer: attention, then the feed-forward part, each with its residual and norm."""
        attended = self.dense(self.attention(x, f"{name}.attention"), f"{name}.attention.output.dense")
        first = self.norm(self.do("Add", [x, attended], f"{name}.r1"), f"{name}.attention.output.LayerNorm")
        wide = self.do("Gelu", [self.dense(first, f"{name}.intermediate.dense")], f"{name}.gelu", approximate="none")
        narrow = self.dense(wide, f"{name}.output.dense")
        return self.norm(self.do("Add", [first, narrow], f"{name}.r2"), f"{name}.output.LayerNorm")

    def pooled(self, x: str) -> str:
        """Take the mean over the real tokens, or the first token, as the model was trained."""
        from onnx import TensorProto

        one = self.put("one", np.ones(1, np.int64))
        if self.pooling.get("pooling_mode_cls_token"):
            first = self.put("first", np.zeros((), np.int64))
            return self.do("Gather", [x, first], "pooled", axis=1)
        if not self.pooling.get("pooling_mode_mean_tokens"):
            raise ModelError("the model pools neither by mean nor by first token", hint='set runtime = "torch"')
        real = self.do("Cast", ["mask"], "real", to=TensorProto.FLOAT)
        weights = self.do("Unsqueeze", [real, self.put("last", -np.ones(1, np.int64))], "weights")
        total = self.do("ReduceSum", [self.do("Mul", [x, weights], "weighted"), one], "total", keepdims=0)
        return self.do("Div", [total, self.do("ReduceSum", [weights, one], "count", keepdims=0)], "pooled")

    def bytes(self) -> bytes:
        """Spell out the whole model and serialise it."""
        from onnx import TensorProto, helper

        self.do("Cast", ["mask"], "mask32", to=TensorProto.INT32)
        x = self.embeddings()
        for number in range(self.settings["num_hidden_layers"]):
            x = self.layer(x, f"encoder.layer.{number}")
        self.do("LpNormalization", [self.pooled(x)], "vectors", axis=-1, p=2)
        kinds = {name: helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("ids", "mask")}
        out = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", self.settings["hidden_size"]])
        graph = helper.make_graph(self.nodes, "embedder", list(kinds.values()), [out], self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        whole = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="domicile")
        return bytes(whole.SerializeToString(deterministic=True))
