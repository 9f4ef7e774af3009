"""fedemu runs federated learning over networks that misbehave, and tells how long it took to learn."""

__version__ = "0.1.0"
