"""Benchmarks of charloom, PyTorch and JAX on one machine: `python -m benchmarks`."""
