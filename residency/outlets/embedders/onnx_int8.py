"""The same graph in 8 bits, weights by channel and activations as they come: a quarter of the size, twice as fast.

What comes out is another embedding space, near the first and not the same, so it has a digest of its own.
"""

import io
from typing import Final

SUFFIX: Final = "+int8"
"""Stands after the digest of a model whose vectors were made in 8 bits."""


def quantised(graph: bytes) -> bytes:
    """Give the 8-bit form of what `onnx_graph.build` wrote; takes about three seconds.

    Dynamic quantisation: nothing is calibrated, so no text is needed for it. Only on processors with 8-bit products
    (AVX-512 VNNI, AVX-VNNI, ARM dot products) is it both fast and true; elsewhere the self-test may refuse it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, made = onnx.load_from_string(graph), io.BytesIO()
    whole.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # there is nothing to fold in it
    quantize_dynamic(
        whole,
        made,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Attention", "Gather"],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # the graph names no types of what lies between
    )
    return made.getvalue()
