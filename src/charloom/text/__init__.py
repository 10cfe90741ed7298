"""Texts: sources, corpora, vocabularies, encoded datasets, batches and verbatim overlap."""
