"""Predict characters: sample, score, mix network and n-gram model, adapt."""
