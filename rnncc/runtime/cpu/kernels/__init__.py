"""What kernels are written with, and the kernels that know no cell."""
