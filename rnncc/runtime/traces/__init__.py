"""What a cell computes on the way: every value that its equations name, at every step."""
