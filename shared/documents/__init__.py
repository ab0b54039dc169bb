"""Collections and documents: their records in Redis and their files on disk.

Knows nothing of how a document is parsed, embedded or searched: the API imports this package, so no PDF reader, no
index client and no model library may enter it.
"""
