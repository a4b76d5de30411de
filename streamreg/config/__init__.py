"""The parameters of a fit, parsed and checked once."""
