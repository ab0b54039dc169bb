"""The ``enginehouse`` command: run a server, administer it, and call it. It imports no model, index or document library."""

import shared  # noqa: F401 before any module imports redis
