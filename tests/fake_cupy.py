"""A device without a GPU: arrays that only explicit copies bring to the host, and streams.

It has of CuPy what streamreg calls. Functions are NumPy's, on arrays that NumPy cannot read. Copies
on a stream happen as late as they may: once an event after them is waited for. Each copy to the
host, and each wait for the device, is counted.
"""

from __future__ import annotations

import operator
from collections import deque
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np


class OutOfMemoryError(MemoryError):
    """More than the device has."""


class CUDARuntimeError(RuntimeError):
    """No device, or another fault of CUDA."""


class Array:
    """An array on the device."""

    __module__ = "cupy"
    __array_ufunc__ = None

    def __init__(self, values, device):
        self._values, self._device = values, device

    def __array__(self, *given, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __bool__(self):
        self._device.n_waits += 1
        return bool(self._values)

    def __float__(self):
        self._device.n_waits += 1
        return float(self._values)

    __int__ = __index__ = __float__

    def __len__(self):
        return len(self._values)

    def __getitem__(self, key):
        return self._device.wrapped(self._values[key])

    def __setitem__(self, key, value):
        self._values[key] = self._device.plain(value)

    def __getattr__(self, name):
        value = getattr(self._values, name)
        if not callable(value):
            return self._device.wrapped(value)
        return lambda *given, **options: self._device.call(value, given, options)

    def get(self):
        self._device.n_copies += 1
        self._device.n_waits += 1
        self._device.synchronize()
        return self._values.copy()

    def set(self, values, stream):
        assert isinstance(values, np.ndarray)
        assert values.flags.c_contiguous or values.flags.f_contiguous
        assert (values.shape, values.dtype) == (self._values.shape, self._values.dtype)

        def copy():
            self._values[...] = values

        stream.queued.append(copy)
        if stream is self._device.current:
            # what follows is done at once, and comes after it
            stream.run(len(stream.queued))


for _name in ("add", "sub", "mul", "truediv", "matmul", "pow", "ne", "eq", "lt", "gt"):
    _operator = getattr(operator, _name)
    setattr(
        Array, f"__{_name}__",
        lambda a, b, do=_operator: a._device.call(do, (a, b), {}),
    )  # fmt: skip
    setattr(
        Array, f"__r{_name}__",
        lambda a, b, do=_operator: a._device.call(do, (b, a), {}),
    )  # fmt: skip
for _name in ("iadd", "isub", "imul", "itruediv"):
    _operator = getattr(operator, _name)
    setattr(
        Array, f"__{_name}__",
        lambda a, b, do=_operator: a._device.changed(do, a, b),
    )  # fmt: skip


class Stream:
    """Work that is done in order, as late as may be."""

    def __init__(self, device):
        self.queued, self._device = deque(), device

    def __enter__(self):
        self._device.current = self
        return self

    def __exit__(self, *exception):
        self._device.current = None

    def record(self, event=None):
        event = event or Event()
        event.stream, event.n_before = self, len(self.queued)
        return event

    def wait_event(self, event):
        if event.stream is not None:
            event.stream.run(event.n_before)

    def launch_host_func(self, function, argument):
        self.queued.append(lambda: function(argument))

    def synchronize(self):
        self._device.n_waits += 1
        self.run(len(self.queued))

    def run(self, count):
        for _ in range(min(count, len(self.queued))):
            self.queued.popleft()()


class Event:
    """A place in a stream."""

    def __init__(self, *, disable_timing=False):  # noqa: ARG002
        self.stream, self.n_before = None, 0

    def record(self, stream):
        stream.record(self)


class Pool:
    """A limit for the memory of a device."""

    def __init__(self, device):
        self.device, self.limit = device, 0

    def set_limit(self, size):
        self.limit = size

    def malloc(self, nbytes):
        if nbytes > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")

    def free_all_blocks(self):
        pass


class FakeCuPy(ModuleType):
    """The module; functions that are not named here are NumPy's."""

    def __init__(self, free_nbytes=1 << 30, n_devices=1):
        super().__init__("cupy")
        self.n_copies = self.n_waits = 0
        self.allocator = self.current = None
        self.streams = []
        self.cublas = SimpleNamespace(syrk=self._syrk)
        self.linalg = SimpleNamespace(
            lstsq=lambda *given, **options: self.call(np.linalg.lstsq, given, options)
        )
        self.cuda = SimpleNamespace(
            Device=lambda: SimpleNamespace(synchronize=self.synchronize),
            MemoryPool=lambda: Pool(self),
            Stream=self._stream,
            Event=Event,
            alloc_pinned_memory=bytearray,
            using_allocator=self._using,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                memGetInfo=lambda: (free_nbytes, free_nbytes),
                getDeviceCount=lambda: n_devices,
                CUDARuntimeError=CUDARuntimeError,
            ),
        )

    def __getattr__(self, name):
        function = getattr(np, name)
        return lambda *given, **options: self.call(function, given, options)

    def empty(self, shape, dtype=float):
        made = np.empty(shape, dtype)
        if self.allocator is not None:
            self.allocator(made.nbytes)
        return Array(made, self)

    def asarray(self, values):
        return Array(np.array(values), self)

    def get_default_pinned_memory_pool(self):
        return Pool(self)

    def call(self, function, given, options):
        plain = [self.plain(each) for each in given]
        options = {name: self.plain(each) for name, each in options.items()}
        made = function(*plain, **options)
        if options.get("out") is not None:
            return None
        return self.wrapped(made)

    def changed(self, do, mine, other):
        do(mine._values, self.plain(other))
        return mine

    def plain(self, value):
        """Return what NumPy understands; arrays of the host do not mix with the device's."""
        assert not (isinstance(value, np.ndarray) and value.ndim), "an array of the host"
        return value._values if isinstance(value, Array) else value

    def wrapped(self, value):
        if isinstance(value, np.ndarray | np.generic):
            return Array(np.asarray(value), self)
        return value

    def synchronize(self):
        for stream in self.streams:
            stream.run(len(stream.queued))

    def _stream(self, *, non_blocking):  # noqa: ARG002
        self.streams.append(Stream(self))
        return self.streams[-1]

    @contextmanager
    def _using(self, allocator):
        before, self.allocator = self.allocator, allocator
        try:
            yield
        finally:
            self.allocator = before

    def _syrk(self, trans, a, out, alpha=1.0, beta=0.0, lower=False):  # noqa: FBT002  (CuPy's)
        assert (trans, alpha, beta, lower) == ("N", 1.0, 1.0, True)
        a, out = self.plain(a), self.plain(out)
        assert a.flags.f_contiguous
        assert out.flags.f_contiguous
        out += np.tril(a @ a.T)
