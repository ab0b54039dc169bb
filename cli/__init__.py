"""The ``enginehouse`` command: run a server, administer it, and call it. It imports no model, index or document library."""
