"""Train: options, the planner for a time budget, the training loop. No I/O."""
