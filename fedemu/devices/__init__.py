"""Devices: how long a client's hardware takes to train, in emulated seconds."""
