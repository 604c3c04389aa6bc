"""Schedule to the text of numba.cuda kernels: the same stages, other loops around them."""
