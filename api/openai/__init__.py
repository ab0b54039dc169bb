"""OpenAI's API on jobs: translation of its requests to jobs, and of jobs to its responses. The routes are in ``routes/openai``."""
