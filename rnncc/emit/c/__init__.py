"""Schedule -> C99: one file of functions over a plain struct of states."""
