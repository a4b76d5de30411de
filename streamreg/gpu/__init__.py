"""Passes on a GPU, with CuPy. Experimental: its speed has not been measured on a real GPU."""
