"""Federated algorithms: pure functions on both sides of the wire."""
