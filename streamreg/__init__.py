"""Linear regression on data larger than memory.

The names of ``__init__.pyi`` are public; each is imported when it is first used (SPEC 1), so that
``import streamreg`` imports neither scikit-learn, Dask, Zarr nor CuPy.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
