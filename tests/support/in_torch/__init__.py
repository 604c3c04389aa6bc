"""What runs in a process of torch of its own."""
