"""Schedule to the text of CPU kernels."""
