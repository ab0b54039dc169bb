"""What the engine does on a GPU: one command for each figure of ``docs/performance.md``; each prints JSON lines."""
