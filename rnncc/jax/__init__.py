"""Recurrent cells of JAX's: jax.lax.scan by compiled kernels, forward and backward.

    carry, ys = rnncc.jax.scan(f, init, xs)         in place of jax.lax.scan

Needs JAX: pip install 'rnncc[jax]'.

Non-Goals: other devices than the CPU; other numbers than float32 and float64.
"""

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ImportError("rnncc.jax needs JAX: pip install 'rnncc[jax]'") from None

from rnncc.jax.scanning import scan

__all__ = ["scan"]
