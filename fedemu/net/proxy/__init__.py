"""A TCP proxy whose bytes go over an emulated link: what any two programs say to each other, each byte at its time."""
