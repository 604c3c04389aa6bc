"""A model's recurrent modules, run by kernels: `rnncc.torch.convert`."""
