"""Constraints on a sample: patterns, grammars, and texts that must or must not occur."""
