"""Models: functions from a task to a PyTorch module, whose parameters live in one flat vector."""
