"""Passes on a GPU, with CuPy; experimental. Imported only if a fit asks for it."""
