"""Python functions to machine code, and the cache of modules and of machine code."""
