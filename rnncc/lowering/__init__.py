"""CellSpec -> Program: names resolved, options folded, sugar gone; and a cell's description."""
