"""The intermediate representation: sizes, types, values, operations, programs, and what they mean.

Non-Goals: scheduling, memory, threads, target code. Those live to the right, in `schedule` and `emit`.
"""
