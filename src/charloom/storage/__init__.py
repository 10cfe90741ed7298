"""Files: checkpoints, atomic writes, the names in a run's folder."""
