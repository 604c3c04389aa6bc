"""What all of the runtime uses: memory, strides, forks, formats of weights."""
