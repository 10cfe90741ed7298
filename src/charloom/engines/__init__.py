"""Engines: the arithmetic of training and inference behind one protocol, opened by `Backend`.

V: characters in the vocabulary; H: hidden units; L: layers; T: time steps; B: rows of a batch;
P: parameters in all; S: arrays of state (2 for lstm: hidden and cell state; else 1).
"""
