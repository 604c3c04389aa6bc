"""All that generated modules import: one module for each kind of machine."""
