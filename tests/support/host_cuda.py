"""CUDA C, compiled for the host and run on it."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np

COMPILE = ["g++", "-x", "c++", "-std=c++17", "-O1", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
HEADER = Path(__file__).with_name("cuda_on_host.h")
PLACE = """
#include "{header}"
{code}
{wrappers}
"""
CALL = """extern "C" int call(unsigned blocks, unsigned threads, unsigned nbytes, {parameters}) {{
    return launch(blocks, threads, nbytes / 8, [=] {{ {name}({names}); }});
}}
"""
# grids run one at a time, because threadIdx and blockIdx are global variables of the library
one_grid = threading.Lock()


def wrapped(code, name):
    """Return the C++ source of a function that launches a kernel on blocks of threads."""
    template, _, first = name.partition("<")
    (parameters,) = re.findall(rf"__global__.*\b{template}\(([^)]*)\)", code, re.DOTALL)
    parameters = re.sub(r"\bT\b", re.split("[,>]", first)[0], " ".join(parameters.split()))
    names = ", ".join(re.findall(r"(\w+)(?:,|$)", parameters))
    return CALL.format(parameters=parameters, name=name, names=names)


class RawModule:
    """Replaces ``cupy.RawModule``."""

    def __init__(self, *, code, options, name_expressions):
        assert options == ("--std=c++17",)
        (name,) = name_expressions
        source = PLACE.format(header=HEADER, code=code, wrappers=wrapped(code, name))
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "kernels.so")
            subprocess.run([*COMPILE, "-o", library, "-"], input=source, text=True, check=True)
            # the library stays in memory after its file is removed
            self._library = ctypes.CDLL(str(library))

    def get_function(self, _):
        function = self._library.call

        def launch(grid, block, arguments, shared_mem=0):
            assert block[0] % 32 == 0
            assert shared_mem <= 48 << 10, "above 48 KiB the kernel must ask for shared memory"
            arrays = [each for each in arguments if not isinstance(each, np.integer)]
            arrays[0]._device.use(arrays)
            given = [_passed(each) for each in arguments]
            sizes = (ctypes.c_uint(number) for number in (*grid, *block, shared_mem))
            with one_grid:
                found = function(*sizes, *given)
            assert found >= 0, "threads wait for others that have ended"
            assert found == 0, "written beyond the shared memory"
            arrays[-1]._device.written(arrays[-1])

        return launch


def _passed(argument):
    if isinstance(argument, np.int32):
        return ctypes.c_int(int(argument))
    if isinstance(argument, np.integer):
        return ctypes.c_longlong(int(argument))
    values = argument._values
    assert values.flags.c_contiguous
    return ctypes.c_void_p(values.ctypes.data)
