"""`python -m bench gpu`: what runs on a GPU, in processes that may fail alone.

ahead     compiles kernels where there is no GPU
suite     the order of a run, within its minutes
session   worker processes, and what they answered
worker    one task a line
ready     what has to be right before anything is timed
check, arrays    how far off results are
cases, timing    what is timed, and how
"""
