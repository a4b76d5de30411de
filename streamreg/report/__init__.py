"""One HTML page about a fitted model: tables and figures, which need no network."""
