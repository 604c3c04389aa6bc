"""An operation in JAX: what `rnncc.jax` makes of it, called by Keras's backend.

Non-Goals: devices other than the CPU.
"""

from rnncc.jax.mechanism import HOW, prepare, run

__all__ = ["HOW", "prepare", "run"]
