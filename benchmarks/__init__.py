"""Ratios of speed against PyTorch and against public teaching code: `make bench`."""
