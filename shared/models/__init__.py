"""The catalogue of models that can be served."""
