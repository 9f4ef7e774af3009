"""Data sets: labelled examples for training and testing, read from files that are checked by hash."""
