"""Selectors: which clients take part in a round."""
