"""State of an unfinished fit on disk, so that the fit can be resumed."""
