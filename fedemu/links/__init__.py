"""Links: what a network does to a message, as functions of the message and never of a clock."""
