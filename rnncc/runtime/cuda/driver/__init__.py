"""A GPU: memory, launches, graphs and the vendor's matrix products."""
