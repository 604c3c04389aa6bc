"""Runs generated CPU kernels."""
