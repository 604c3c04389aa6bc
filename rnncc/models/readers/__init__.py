"""Files that other programs wrote -> models: chains of Keras and torch, amplifiers.

Non-Goals: bytes -> arrays (`files`); graphs of ONNX; which reader a file is for (`load`).
"""
