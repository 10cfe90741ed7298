"""The network's parameters, initialization, dropout masks and optimizers, in NumPy."""
