"""The version of charloom, imported by everything else."""

__version__ = "0.1.0"
