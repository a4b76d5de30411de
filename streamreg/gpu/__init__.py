"""Passes on a GPU, with CuPy. Imported only if a fit asks for it. Experimental: not yet measured on a GPU."""
