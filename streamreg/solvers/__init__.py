"""Solvers: which passes they run, and when they stop."""
