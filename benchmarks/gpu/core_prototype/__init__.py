"""Prototype of an engine core without transformers' batching manager; docs/decisions/engine-core.md has what it showed."""
