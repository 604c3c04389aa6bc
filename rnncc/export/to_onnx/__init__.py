"""Layers and models as files of ONNX.

Non-Goals: single Programs as graphs (`emit.onnx`); reading such files (`models.onnx`).
"""
