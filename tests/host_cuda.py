"""CUDA C compiled for the host, and run there: a thread for each thread of a block."""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_host.h")
PLACE = """
#include "{header}"
{code}
{wrappers}
"""
FOLD = """extern "C" void k{number}(
    unsigned blocks, unsigned threads, const {kind}* X, const double* y, const double* weight,
    const double* V, const double* bias, long long first, long long rows, int features, double* sums
) {{
    launch(blocks, threads, [=] {{
        {name}(X, y, weight, V, bias, first, rows, features, sums);
    }});
}}
"""
ADD = """extern "C" void k{number}(
    unsigned blocks, unsigned threads,
    const double* sums, int n_blocks, long long length, double* out
) {{
    launch(blocks, threads, [=] {{ add_up(sums, n_blocks, length, out); }});
}}
"""


class RawModule:
    """In the place of ``cupy.RawModule``."""

    def __init__(self, *, code, options, name_expressions):
        assert options == ("--std=c++17",)
        self._names = list(name_expressions)
        wrappers = [
            (FOLD if name.startswith("fold") else ADD).format(
                number=number, name=name, kind="float" if "float" in name else "double"
            )
            for number, name in enumerate(self._names)
        ]
        source = PLACE.format(header=HEADER, code=code, wrappers="\n".join(wrappers))
        about = hashlib.sha256(source.encode()).hexdigest()
        folder = Path(tempfile.mkdtemp(prefix=f"streamreg-{about[:8]}-"))
        (folder / "kernels.cpp").write_text(source)
        subprocess.run(
            [
                "g++", "-std=c++20", "-O1", "-Wno-unknown-pragmas", "-shared", "-fPIC", "-pthread",
                "-o", folder / "kernels.so", folder / "kernels.cpp",
            ],
            check=True,
        )  # fmt: skip
        self._library = ctypes.CDLL(str(folder / "kernels.so"))

    def get_function(self, name):
        function = getattr(self._library, f"k{self._names.index(name)}")
        takes = re.sub(r"<.*", "", name)

        def launch(grid, block, arguments, shared_mem=0):
            assert block[0] % 32 == 0 or takes == "add_up"
            assert shared_mem <= 8 << 17
            threads = -(-block[0] // 32) * 32
            function(
                ctypes.c_uint(*grid), ctypes.c_uint(threads), *(_passed(each) for each in arguments)
            )

        launch.max_dynamic_shared_size_bytes = 0
        return launch


def _passed(argument):
    if isinstance(argument, np.int32):
        return ctypes.c_int(int(argument))
    if isinstance(argument, np.integer):
        return ctypes.c_longlong(int(argument))
    values = argument._values
    assert values.flags.c_contiguous
    return ctypes.c_void_p(values.ctypes.data)
