"""Retrieval quality on eleven manuals from Debian packages: how often a search finds the passage that answers a question.

``questions.jsonl`` has the questions, in the format of ``enginehouse evaluate``; ``manuals.json`` the packages with their versions,
licences and hashes. ``docs/retrieval.md`` has the figures and the commands.
"""
