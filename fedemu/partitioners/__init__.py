"""Partitioners: who holds which examples."""
