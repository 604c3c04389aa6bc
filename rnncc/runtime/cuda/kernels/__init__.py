"""What CUDA kernels are written with, their machine code, and the kernels that know no cell."""
