"""Vision transformers: their weights, the features taken from them, and their ONNX graphs."""
