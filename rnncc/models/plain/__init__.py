"""What stands around recurrent layers, on NumPy: dense layers, embeddings, normalisation, shapes.

Non-Goals: training; what convolves over more than time.
"""

from rnncc.models.plain.affine import Activation, Dense, Embedding, PRelu
from rnncc.models.plain.convolution import Convolution
from rnncc.models.plain.joins import Concatenated, Gain, JoinedBy, PooledSteps
from rnncc.models.plain.normalization import BatchNorm, LayerNorm, MaskedSteps, MaskStep
from rnncc.models.plain.shapes import (
    EachStep,
    FirstFeatures,
    LastStep,
    Permuted,
    RepeatedSteps,
    Reshaped,
    Same,
)

__all__ = [
    "Activation",
    "BatchNorm",
    "Concatenated",
    "Convolution",
    "Dense",
    "EachStep",
    "Embedding",
    "FirstFeatures",
    "Gain",
    "JoinedBy",
    "LastStep",
    "LayerNorm",
    "MaskStep",
    "MaskedSteps",
    "PRelu",
    "Permuted",
    "PooledSteps",
    "RepeatedSteps",
    "Reshaped",
    "Same",
]
