"""Codecs: how a vector travels in fewer bytes."""
