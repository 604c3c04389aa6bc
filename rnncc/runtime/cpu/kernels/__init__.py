"""What kernels call, and the kernels that know no cell."""
