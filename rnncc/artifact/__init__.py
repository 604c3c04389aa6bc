"""What a generated module carries: the description of its cell, and the tables of its kernels."""
