"""TCP models: how a message becomes bursts on a path of given rate and round-trip time."""
