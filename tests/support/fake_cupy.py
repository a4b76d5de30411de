"""A fake CuPy: the part that streamreg calls, without a GPU.

Functions are NumPy's, on arrays that NumPy cannot read, and run at once. Copies on another stream
run as late as possible: when their target is used, or an event after them is synchronised. Each
stream has a vector clock, by which these races are errors: a copy over memory that another stream
may still use, a use before a copy or a computation is done, and freeing an array of the default
stream that another stream may still use. Copies to the host and waits of the host are counted.
"""

from __future__ import annotations

import operator
import sys
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
from numpy.lib.array_utils import byte_bounds


class OutOfMemoryError(MemoryError):
    """More than the device has."""


class CUDARuntimeError(RuntimeError):
    """No device, or another fault of CUDA."""

    __module__ = "cupy_backends.cuda.api.runtime"


class CUDADriverError(RuntimeError):
    """Raised by kernels."""

    __module__ = "cupy_backends.cuda.api.driver"


class Memory:
    """Shared by an array and its views: which stream made it when, and which used it."""

    def __init__(self, device):
        self.device, self.made_by = device, device.current
        self.made_at, self.used = self.made_by.known[self.made_by], {}
        self.wrote = self.made_by, 0  # who wrote last, and when

    def __del__(self):
        # freed memory of other streams is reused only when they have finished; freed memory of the
        # default stream is reused at once by the next work on it
        for stream, tick in self.used.items():
            if self.made_by is self.device.default and stream is not self.made_by:
                known = max(stream.done, self.made_by.known.get(stream, 0))
                if known < tick:
                    self.device.faults.append("freed while in use")


class Array:
    """An array on the device."""

    __module__ = "cupy"

    def __array_ufunc__(self, function, method, *given, out=(None,), **options):
        assert method == "__call__"
        if out[0] is None:
            return self._device.call(function, given, options)
        self._device.call(function, given, options | {"out": out[0]})
        return out[0]

    def __array_function__(self, function, types, given, options):
        return self._device.call(function, given, options)

    def __init__(self, values, device, memory=None):
        self._values, self._device = values, device
        self._memory = memory or Memory(device)

    @property
    def data(self):
        return SimpleNamespace(ptr=byte_bounds(self._values)[0])

    @property
    def device(self):
        return self._device.cuda.Device(0)

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
        if isinstance(key, Array):
            return self._device.call(operator.getitem, (self, key), {})
        return self._device.wrapped(self._values[key], self._memory)

    def __setitem__(self, key, value):
        self._device.use([each for each in (self, value) if isinstance(each, Array)])
        self._values[key] = self._device.plain(value)
        self._device.written(self)

    def __getattr__(self, name):
        if name.startswith("__array"):
            raise AttributeError(name)
        value = getattr(self._values, name)
        if not callable(value):
            return self._device.wrapped(value, self._memory)
        if name in {"view", "reshape"}:  # nothing is done on the device
            return lambda *given: self._device.wrapped(value(*given), self._memory)

        def method(*given, **options):
            self._device.use([self])
            made = self._device.call(value, given, options)
            if name == "fill":
                self._device.written(self)
            return made

        return method

    def get(self, stream=None, out=None, blocking=True):  # noqa: FBT002  (CuPy's)
        self._device.n_copies += 1
        stream = stream or self._device.current
        with stream:
            self._device.use([self])
        if blocking:
            stream.synchronize()
        if out is None:
            return self._values.copy()
        assert isinstance(out, np.ndarray)
        assert (out.shape, out.dtype) == (self._values.shape, self._values.dtype)
        values = self._values.copy()
        # as late as possible
        stream.queued.append((stream.known[stream], lambda: np.copyto(out, values)))
        return out

    def set(self, values, stream):
        assert isinstance(values, np.ndarray)
        assert values.flags.c_contiguous or values.flags.f_contiguous
        assert (values.shape, values.dtype) == (self._values.shape, self._values.dtype)

        self._device.n_sent += values.nbytes

        def copy():
            self._values[...] = values

        self._device.bring(self, copy, stream)


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
Array.__neg__ = lambda a: a._device.call(operator.neg, (a,), {})
for _name in ("iadd", "isub", "imul", "itruediv"):
    _operator = getattr(operator, _name)
    setattr(
        Array, f"__{_name}__",
        lambda a, b, do=_operator: a._device.changed(do, a, b),
    )  # fmt: skip


class Stream:
    """Work that is done in order, and as late as possible."""

    def __init__(self, device):
        self.queued, self._running, self._device = deque(), threading.RLock(), device
        self.known = {self: 0}  # the least tick that each stream has reached
        self.done = 0  # the last tick of which the host knows

    def __enter__(self):
        self._device.entered.append(self)
        return self

    def __exit__(self, *exception):
        self._device.entered.pop()

    def count_wait(self):
        self._device.n_waits += 1

    def tick(self):
        self.known[self] += 1
        return self.known[self]

    def record(self, event=None):
        event = event or Event()
        event.known = dict(self.known)
        return event

    def wait_event(self, event):
        for stream, tick in event.known.items():
            self.known[stream] = max(self.known.get(stream, 0), tick)

    def synchronize(self):
        self._device.n_waits += 1
        self.run(self.known[self])
        self.done = self.known[self]
        self._device.forget(self)

    def run(self, tick):
        with self._running:  # work is done before any waiting thread continues
            while self.queued and self.queued[0][0] <= tick:
                self.queued.popleft()[1]()


class Event:
    """A place in a stream."""

    def __init__(self, *, block=False, disable_timing=False):  # noqa: ARG002
        self.known = {}

    def record(self, stream):
        stream.record(self)

    def synchronize(self):
        if threading.current_thread() is threading.main_thread():
            for stream in self.known:
                stream.count_wait()
                break
        for stream, tick in self.known.items():
            stream.run(tick)
            stream.done = max(stream.done, tick)


class Device:
    """The only device."""

    def __init__(self, cupy, number):
        assert number == 0
        self.id, self.synchronize = number, cupy.synchronize

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class Pool:
    """A limit for the memory of a device."""

    def __init__(self, device):
        self.device, self.limit, self.n_alive = device, 0, 0

    def set_limit(self, size):
        self.limit = size

    def malloc(self, memory, nbytes):
        self.n_alive += nbytes
        weakref.finalize(memory, self.free, nbytes)
        if self.n_alive > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")

    def free(self, nbytes):
        self.n_alive -= nbytes

    def get_limit(self):
        return self.limit

    def total_bytes(self):
        return self.n_alive

    def free_all_blocks(self):
        pass


def _overlap(a, b):
    return a[0] < b[1] and b[0] < a[1]


def install(monkeypatch, device):
    """Replace CuPy by a device."""
    monkeypatch.setitem(sys.modules, "cupy", device)
    cublas = ModuleType("cupy.cublas")
    cublas.syrk = device.syrk
    monkeypatch.setitem(sys.modules, "cupy.cublas", cublas)
    return device


class FakeCuPy(ModuleType):
    """The module; functions that are not defined in it are NumPy's."""

    def __init__(self, free_nbytes=1 << 30):
        super().__init__("cupy")
        self.__version__ = "14"
        self.n_copies = self.n_waits = 0
        self._threads = threading.local()
        self._streams = []
        self.default = self._stream(non_blocking=True)
        self.faults, self.n_sent = [], 0
        self._noting = threading.RLock()  # readers use the device too
        # for each range of memory: which stream used it when, and which copies wrote to it
        self._uses, self._brought = {}, {}
        # cupy.cublas must be imported
        self.__path__ = []
        self.linalg = SimpleNamespace(
            lstsq=lambda *given, **options: self.call(np.linalg.lstsq, given, options)
        )
        self.cuda = SimpleNamespace(
            Device=lambda number=0: Device(self, number),
            get_current_stream=lambda: self.current,
            MemoryPool=lambda: Pool(self),
            Stream=self._stream,
            Event=Event,
            alloc_pinned_memory=bytearray,
            PinnedMemory=bytearray,
            PinnedMemoryPointer=lambda memory, _: memory,
            using_allocator=self._using,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                memGetInfo=lambda: (free_nbytes, free_nbytes),
                getDeviceCount=lambda: 1,
                getDeviceProperties=lambda _: {"name": b"fake"},
                CUDARuntimeError=CUDARuntimeError,
            ),
        )

    @property
    def entered(self):
        """Streams that this thread uses; others use the default one."""
        if not hasattr(self._threads, "entered"):
            self._threads.entered = [self.default]
        return self._threads.entered

    @property
    def current(self):
        return self.entered[-1]

    def synchronize(self):
        for stream in self._streams:
            stream.run(stream.known[stream])
            stream.done = stream.known[stream]
            self.forget(stream)

    def taken(self, made):
        """Take memory for a new array from the pool of this thread, if it has one."""
        allocator = getattr(self._threads, "allocator", None)
        if allocator is not None:
            allocator(made._memory, made._values.nbytes)
        return made

    def __getattr__(self, name):
        function = getattr(np, name)
        return lambda *given, **options: self.call(function, given, options)

    def empty(self, shape, dtype=float):
        made = self.taken(Array(np.empty(shape, dtype), self))
        made._memory.made_at = 0  # nothing was queued for it
        return made

    def asarray(self, values):
        made = self.taken(Array(np.array(values), self))
        self.use([made])
        return made

    def get_default_pinned_memory_pool(self):
        return Pool(self)

    get_default_memory_pool = get_default_pinned_memory_pool

    def use(self, arrays):
        """Do something with arrays on the current stream."""
        with self._noting:
            self._use(arrays, self.current)

    def _use(self, arrays, stream):
        tick = stream.tick()
        for array in arrays:
            memory = array._memory
            known = max(memory.made_by.done, stream.known.get(memory.made_by, 0))
            assert memory.made_by is stream or known >= memory.made_at, "used before it was made"
            writer, when = memory.wrote
            known = max(writer.done, stream.known.get(writer, 0))
            assert writer is stream or known >= when, "used while it is written"
            memory.used[stream] = tick
            span = byte_bounds(array._values)
            for other_span, (other, when) in [*self._brought.items()]:
                if other is not stream and _overlap(span, other_span):
                    assert other.done >= when or stream.known.get(other, 0) >= when, (
                        "used before it was copied"
                    )
                    other.run(when)
                    del self._brought[other_span]
            if stream is not self.default:  # its memory is never reused
                self._uses.setdefault(span, {})[stream] = tick

    def bring(self, array, copy, stream):
        """Queue a copy to an array."""
        with self._noting:
            self._bring(array, copy, stream)

    def _bring(self, array, copy, stream):
        tick, span = stream.tick(), byte_bounds(array._values)
        for other_span, uses in self._uses.items():
            if _overlap(span, other_span):
                for other, when in uses.items():
                    known = max(other.done, stream.known.get(other, 0))
                    assert other is stream or known >= when, "copied over while in use"
        stream.queued.append((tick, copy))
        if stream is self.current:
            stream.run(tick)
        else:
            self._brought[span] = stream, tick

    def forget(self, stream):
        """Forget the work of a stream, because all of it is done."""
        with self._noting:
            for uses in self._uses.values():
                uses.pop(stream, None)
            pending = {
                other_span: by for other_span, by in self._brought.items() if by[0] is not stream
            }
            self._brought = pending

    def call(self, function, given, options):
        listed = [each for one in given if isinstance(one, list) for each in one]
        used = (*given, *options.values(), *listed)
        self.use([each for each in used if isinstance(each, Array)])
        plain = [self.plain(each) for each in given]
        out = options.get("out")
        made = function(*plain, **{name: self.plain(each) for name, each in options.items()})
        if out is not None:
            self.written(out)
            return None
        made = self.wrapped(made)
        if isinstance(made, Array):
            self.taken(made)
            made._memory.made_at = self.current.known[self.current]
        # its memory may have been another array's
        self.use([made] if isinstance(made, Array) else [])
        return made

    def written(self, array):
        array._memory.wrote = self.current, self.current.known[self.current]

    def changed(self, do, mine, other):
        self.use([each for each in (mine, other) if isinstance(each, Array)])
        do(mine._values, self.plain(other))
        self.written(mine)
        return mine

    def plain(self, value):
        """Return what NumPy understands; arrays of the host do not mix with the device's."""
        assert not (isinstance(value, np.ndarray) and value.ndim), "an array of the host"
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        return value._values if isinstance(value, Array) else value

    def wrapped(self, value, memory=None):
        if isinstance(value, np.ndarray | np.generic):
            return Array(np.asarray(value), self, memory)
        return value

    def _stream(self, *, non_blocking):
        assert non_blocking  # blocking streams wait for each other
        self._streams.append(Stream(self))
        return self._streams[-1]

    @contextmanager
    def _using(self, allocator):
        before = getattr(self._threads, "allocator", None)
        self._threads.allocator = allocator
        try:
            yield
        finally:
            self._threads.allocator = before

    def syrk(self, trans, a, out, alpha=1.0, beta=0.0, lower=False):  # noqa: FBT002  (CuPy's)
        assert (trans, alpha, beta, lower) == ("N", 1.0, 1.0, True)
        a, out = self.plain(a), self.plain(out)
        assert a.flags.f_contiguous
        assert out.flags.f_contiguous
        out += np.tril(a @ a.T)
