"""Models as people write them, in which layers stand."""
