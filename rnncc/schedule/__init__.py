"""Program -> Schedule: stages, levels, buffers, and where each contraction runs.

Non-Goals: text (`emit`), addresses and sizes of one call (`runtime`).
"""
