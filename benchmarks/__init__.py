"""Where the figures of the README and of docs/performance.md come from. Each prints one JSON line a figure."""
