"""`fedemu proxy`: a link file, the proxy that applies it, and what is told and changed while it runs."""
