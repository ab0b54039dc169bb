"""Chat sessions: who began one, and what has been said in it."""
