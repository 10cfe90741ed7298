"""charloom: a recurrent language model of the characters of your own text, on a laptop's CPU."""

__version__ = "0.1.0"
