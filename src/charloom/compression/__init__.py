"""Lossless compression: a model predicts every character, and a range coder writes which it is."""
