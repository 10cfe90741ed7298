"""The compiled engine: a whole training step, or a stretch of inference, in one Numba kernel."""
