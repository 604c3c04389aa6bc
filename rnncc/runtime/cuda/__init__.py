"""Runs generated CUDA kernels: on a device through numba-cuda, or wherever a `Target` says."""
