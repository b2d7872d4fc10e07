"""A trained model as an ONNX graph and a model card."""
