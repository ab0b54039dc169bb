"""The models that can be served: what each is and where it comes from."""
