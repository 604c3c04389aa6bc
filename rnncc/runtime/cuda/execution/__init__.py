"""Tables and arrays on a GPU -> results."""
