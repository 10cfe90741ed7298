"""Pages in one file: HTML, script, style and data."""
