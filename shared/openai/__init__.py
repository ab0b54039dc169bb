"""OpenAI's API as jobs: the jobs that a request asks for, and the response that ended jobs make. Knows no HTTP."""
