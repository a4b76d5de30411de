"""Engines, which run passes."""
