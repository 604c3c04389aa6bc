"""Layers and models -> cells in a row, each written into one C file."""
