"""Without Numba there are no kernels, and nothing to test here."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("numba") else ["test_*.py"]
