"""Which passes, and when to stop."""
