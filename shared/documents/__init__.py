"""Collections and documents: their records in Redis and their files on disk.

The API imports this package, so it must not import PDF readers, index clients or model libraries.
"""
