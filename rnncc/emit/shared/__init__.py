"""What the text of CPU and of CUDA kernels is made with."""
