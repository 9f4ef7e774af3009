"""Background traffic: what flows in a shared pipe beside the run's own transfers."""
