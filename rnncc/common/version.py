"""The version, for whoever needs no more of rnncc than that."""

__version__ = "0.1.0"
