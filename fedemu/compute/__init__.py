"""Where training really runs. It never changes what comes out, nor a virtual run's events."""
