"""How server and clients talk: messages, the transports that carry them, and the emulated network in between."""
