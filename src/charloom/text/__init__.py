"""Texts: sources, corpora, vocabulary, encoded datasets, batches, overlaps."""
