"""Observers: views of the event log. None of them touches the maths."""
