"""CUDA sources, compiled for the present GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

# CuPy has no type hints: these stand for its module, and for its arrays and numbers
CuPy = Any
DeviceArray = Any
# returns a kernel, given a source file of this package and the name of a function in it, or of a
# template instance
Compiler = Callable[[str, str], Any]


def compiler(cupy: CuPy) -> Compiler:
    """Return a function that compiles a kernel when it is first asked for; CuPy caches the code."""

    @cache
    def kernel(source: str, name: str) -> Any:  # noqa: ANN401
        folder = files("streamreg.gpu")
        code = "\n".join(folder.joinpath(file).read_text() for file in ("shared.cu", source))
        module = cupy.RawModule(code=code, options=("--std=c++17",), name_expressions=[name])
        return module.get_function(name)

    return kernel
