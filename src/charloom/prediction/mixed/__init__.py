"""Network and counts in one kernel: scoring, stepping and sampling many characters in a call."""
