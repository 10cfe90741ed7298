"""Held-out evaluation: metrics with confidence intervals, baselines, and the records of them."""
