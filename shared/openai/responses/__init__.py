"""``/v1/responses`` as jobs: the job that a request asks for, and the response, its items and its events, made of the job."""
