"""Ingest of many files by the command: which there are, each on its way, how that looks, what became of them."""
