"""The engine process: it holds one model and generates tokens for many requests at once.

It knows nothing of jobs, text or queues: token ids come in over one connection and token ids go out.
"""
