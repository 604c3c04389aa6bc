"""Schedule to source text, by templates that decide nothing."""
