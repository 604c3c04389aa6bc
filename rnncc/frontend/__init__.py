"""The front end: the text of a cell becomes a `CellSpec`, or a `SpecError` with all its mistakes.

Non-Goals: shapes and types of equations, which `lowering.lower` finds once options are bound.
"""
