"""Imports of large libraries, by one thread at a time.

The threads of a worker import them when they first need them. When two threads import libraries that share others, as Chroma's client and
PyTorch share numpy, each may wait for a module that the other one imports. Python then lets one of them have it half imported,
and numpy stays broken until the process ends: every search fails.
"""

import threading

IMPORTS = threading.RLock()
