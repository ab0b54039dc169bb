"""Engine process: holds one model and generates tokens for many requests at once.

Token ids come in over one connection and token ids go out; jobs, text and queues stay in the worker.
"""
