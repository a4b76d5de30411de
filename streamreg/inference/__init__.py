"""Standard errors and what follows from them, after a fit."""
