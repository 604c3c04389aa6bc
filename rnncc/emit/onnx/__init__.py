"""Programs as graphs of ONNX."""
