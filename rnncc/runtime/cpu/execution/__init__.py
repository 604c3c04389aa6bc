"""Tables and arrays -> results."""
