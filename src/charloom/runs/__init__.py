"""A training run on disk: prepare, train, record, save, resume."""
