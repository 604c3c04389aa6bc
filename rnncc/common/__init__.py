"""What every package may use: versions, the machine, templates, initializers, size expressions."""
