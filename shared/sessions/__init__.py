"""Chat sessions: their owners and messages."""
