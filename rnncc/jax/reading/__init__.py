"""A step of jax.lax.scan -> the equations it computes.

    flat      a jaxpr, calls within it opened, as a list of equations with the user's lines
    batch     which lengths of which arrays are the batch
    words     what JAX's primitives are for a Recorder
    reader    all of it, and the proof that what was read computes the same

Non-Goals: calls of what was read (`rnncc.jax.scan`).
"""
