"""Small sizes that a cell accepts, for `rnncc check`.

Non-Goals: solving: odd sizes are tried first, then such as divide each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rnncc.cli.settings import Settings, UsageError
from rnncc.frontend.elaborate import sizes_of
from rnncc.ir.sizes import Size

_PRIMES = (3, 5, 2, 7, 4, 6)


def probe_sizes(settings: Settings) -> dict[str, int]:
    """Every size of the cell; UsageError when nothing small fits."""
    interface = settings.derivation.interface
    declared = sizes_of(settings.spec, interface.options)
    free = [name for name, default in declared.items() if default is None]
    equal = [(c.left, c.right) for c in interface.constraints]
    shapes = [
        *(shape for shape, _ in interface.weights.values()),
        *interface.states.values(),
        *interface.inputs.values(),
    ]
    for chosen in _candidates(free):
        sizes = dict(chosen)
        for name, default in declared.items():
            if default is not None:
                sizes[name] = default.evaluate(sizes)
        if _fits(sizes, equal, [size for shape in shapes for size in shape]):
            return {name: sizes[name] for name in declared}
    raise UsageError(f"{settings.spec.name}: no small sizes fit: give some with --set")


def _candidates(free: list[str]) -> Iterator[dict[str, int]]:
    for factor in (1, 4, 12):
        yield {n: factor * _PRIMES[i % len(_PRIMES)] for i, n in enumerate(free)}
    for one in free:  # one of them divides well, the rest stay odd
        yield {n: 12 if n == one else _PRIMES[i % len(_PRIMES)] for i, n in enumerate(free)}
    for value in (4, 12, 16, 1):
        yield dict.fromkeys(free, value)


def _fits(sizes: Mapping[str, int], equal: list[tuple[Size, Size]], shapes: list[Size]) -> bool:
    if any(size < 1 for size in sizes.values()):
        return False
    if any(size.evaluate(sizes) < 1 for size in shapes):
        return False
    return all(a.evaluate(sizes) == b.evaluate(sizes) for a, b in equal)
