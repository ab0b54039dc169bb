"""Request batches: read the requests of a file, run each as a job, and write the answers as they come."""
