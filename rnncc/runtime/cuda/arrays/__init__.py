"""Arrays of CuPy and tensors of torch on a GPU, read and written where they are."""
