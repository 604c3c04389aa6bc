"""A model that was read out of a state_dict -> that state_dict.

Non-Goals: models of other files, whose parts torch has under other names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rnncc.models.model import Model


def torch_state_dict(
    model: Model, arrays: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The model's weights by the names that the file had, shapes as torch has them.

    arrays: others than the model's, by part/weight: gradients, say; what is missing is left out.
    ValueError for a model that no state_dict was read for.
    """
    sources = model.metadata.get("tensors")
    if not isinstance(sources, Mapping):
        raise ValueError(f"{model!r} was not read out of a state_dict")
    held = model.weights if arrays is None else arrays
    found: dict[str, np.ndarray] = {}
    for name, (part, weight, how) in sources.items():
        if f"{part}/{weight}" in held:
            array = held[f"{part}/{weight}"]
            found[name] = np.ascontiguousarray(array.T if how == "transposed" else array)
    return found
