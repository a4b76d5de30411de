"""The hot loops behind the accumulators."""
