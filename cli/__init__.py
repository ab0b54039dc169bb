"""The ``enginehouse`` command: starts, watches and shows the parts. It imports no model, index or document library."""
