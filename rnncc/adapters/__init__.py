"""What frameworks' adapters (`rnncc.torch`, `rnncc.keras`) have in common."""
