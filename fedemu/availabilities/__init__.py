"""Availabilities: when clients are online."""
