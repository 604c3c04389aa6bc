"""What every target plans alike: call keys, layouts, arguments of kernels, copies around them."""
