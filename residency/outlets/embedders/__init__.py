"""Bodies of the `Embedder` port: `onnx_embedder` on a CPU, `torch_embedder` on a GPU or as the reference."""
