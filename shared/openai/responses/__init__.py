"""Responses: what is kept of one besides its job, its items, and its events. ``response_plan.py`` has the job that a request asks for."""
