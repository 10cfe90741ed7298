"""Serve models over an OpenAI-compatible HTTP API."""
