"""The words kernels are written in, and what they mean: integers, atomics, vectors, tiles."""
