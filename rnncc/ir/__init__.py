"""The intermediate representation: sizes, types, values, operations, programs, and what they mean.

Non-Goals: scheduling, memory, threads, target code: those live to the right, in `schedule` and
`emit`.
"""
