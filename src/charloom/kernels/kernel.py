"""Kernels: functions that are compiled when they are first needed, and called by their address.

A kernel in the cache needs neither Numba nor LLVM nor its own module, whose import would take
longer than many a command. `charloom.kernels.loading` loads the object code, and ctypes calls its
one function. The modules that a caller of kernels imports must therefore not import Numba at the
top: a `Kernel` has its function's name.

The function gets its arguments as an array of words. A number is one word, an array the address of
its first entry, and a named tuple has the words of its fields. The arrays' shapes follow.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np

from charloom.errors import CharloomError, error_reason
from charloom.kernels import cache, helper
from charloom.kernels.loading import load_code

LOG = logging.getLogger("charloom")
T = TypeVar("T")
ENTRY = "charloom_kernel"  # the name of the function in object code

_compiling = threading.Lock()  # so that the seconds of two threads are not counted twice
_seconds_compiling = 0.0


def seconds_compiling() -> float:
    """Return the seconds that this process has compiled kernels, with the import of Numba."""
    return _seconds_compiling


class Kernel:
    """A function to be compiled by Numba that returns nothing and runs without Python's lock.

    Args:
        function: the function, or `module:name`, so that its module is imported only to compile it.
        what: the kernel's name in messages.
    """

    def __init__(self, function: Callable[..., None] | str, what: str) -> None:
        self._function = function
        self._what = what
        self._lock = threading.Lock()
        self._by_signature: dict[str, CompiledKernel] = {}
        self._ready: CompiledKernel | None = None

    def compiled(self, arguments: tuple[Any, ...]) -> CompiledKernel:
        """Return a callable that runs the kernel on arguments of these types.

        The kernel is compiled, or read from its file, on the first call.
        """
        signature = ", ".join(map(_describe, arguments))
        with self._lock:
            found = self._by_signature.get(signature)
            if found is None:
                address = self._load(signature, arguments)
                found = self._by_signature[signature] = CompiledKernel(address, arguments)
        return found

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel on arguments that have the same types in every call, which is faster."""
        if self._ready is None:
            self._ready = self.compiled(arguments)
        self._ready(*arguments)

    def is_kept(self) -> bool:
        """Return whether the cache has the kernel, for any arguments."""
        return cache.is_kept(self._what)

    def require_compiler(self) -> None:
        """Return if the kernel can be loaded or compiled.

        Numba is imported only if the cache has no kernel that it compiled, because that takes long.

        Raises:
            Exception: the reason why Numba cannot be imported, which can be of any kind.
        """
        cache.version_of("numba")
        if not cache.is_kept():
            import numba  # noqa: F401

    def _load(self, signature: str, arguments: tuple[Any, ...]) -> int:
        """Return the address of the compiled function."""
        name = cache.file_name(self._what, signature)
        address = self._from_cache(name)
        if address is None and _waited(partial(helper.wait_for, self._what)):
            address = self._from_cache(name)
        if address is not None:
            return address
        often = helper.ONCE
        if cache.cache_folder() is None:
            often = "in every process, because no cache folder can be written"
        LOG.warning(helper.NOTICE, self._what, often)
        helper.report(helper.BEGINS + self._what)
        code = self._compile(arguments)
        cache.write(name, code)
        helper.report(helper.ENDS + self._what)
        return load_code(code, ENTRY)

    def _from_cache(self, name: str) -> int | None:
        """Return the address of the function in a file of the cache, if it can be loaded."""
        code = cache.read(name)
        if code is not None:
            try:
                return load_code(code, ENTRY)
            except (
                RuntimeError,
                ImportError,
                OSError,
            ):  # because a symbol or the linker is missing
                LOG.debug("%s cannot be linked", name)
        return None

    def _compile(self, arguments: tuple[Any, ...]) -> bytes:
        """Return the object code of the function.

        Raises:
            CharloomError: if Numba cannot be imported, because `require_compiler` trusts the cache.
        """

        def compiled() -> bytes:
            try:
                from charloom.kernels.compiling import compile_kernel
            except Exception as error:  # Numba raises all kinds of errors
                raise CharloomError(
                    f"the kernel for {self._what} needs Numba, which cannot be imported "
                    f"({error_reason(error)}): pip install --force-reinstall numba, or use "
                    "--engine reference"
                ) from None
            function = self._function
            if isinstance(function, str):
                module, _, name = function.partition(":")
                function = getattr(importlib.import_module(module), name)
            return compile_kernel(function, arguments, ENTRY)

        return _waited(compiled)


def finish_compiling() -> None:
    """Wait for the process that compiles kernels beside this one, so that it disturbs nothing."""
    _waited(helper.wait)


def _waited(call: Callable[[], T]) -> T:
    """Return the result of a function whose time is that of compiling."""
    global _seconds_compiling
    with _compiling:
        began = time.monotonic()
        try:
            return call()
        finally:
            _seconds_compiling += time.monotonic() - began


class CompiledKernel:
    """A compiled kernel, to be called with arguments of the same types as its first ones.

    Args:
        address: that of the function.
        arguments: arguments of its types.
    """

    def __init__(self, address: int, arguments: tuple[Any, ...]) -> None:
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        self._nested = any(isinstance(argument, tuple) for argument in arguments)
        self._arrays = [
            (index, leaf.dtype, leaf.ndim, leaf.flags.aligned)
            for index, leaf in enumerate(_leaves(arguments))
            if isinstance(leaf, np.ndarray)
        ]
        self._size = sum(1 for _ in _leaves(arguments))
        self._words = ctypes.c_int64 * (self._size + sum(array[2] for array in self._arrays))

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel.

        Raises:
            TypeError: if an argument has another type, or an array is not contiguous.
        """
        self._run(self._pack(arguments))

    def bind(self, *arguments: Any) -> Callable[[], None]:
        """Return a callable that runs the kernel on these very arguments, again and again.

        The caller keeps the arrays alive.
        """
        return partial(self._run, self._pack(arguments))

    def _pack(self, arguments: tuple[Any, ...]) -> Any:
        words = list(_leaves(arguments) if self._nested else arguments)
        if len(words) != self._size:
            raise TypeError(f"{len(words)} arguments instead of {self._size}")
        shapes: list[int] = []
        for index, dtype, dimensions, aligned in self._arrays:
            array = words[index]
            flags = array.flags
            if (
                array.dtype != dtype
                or array.ndim != dimensions
                or not flags.c_contiguous
                or (aligned and not flags.aligned)
            ):
                raise TypeError(f"argument {index} is not a contiguous array of {dtype}")
            words[index] = array.__array_interface__["data"][0]
            shapes += array.shape
        return self._words(*words, *shapes)


def _leaves(arguments: tuple[Any, ...]) -> Iterator[Any]:
    """Yield arguments, and the fields of named tuples in their place."""
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _leaves(argument)
        else:
            yield argument


def _describe(argument: Any) -> str:
    """Return an argument's type for the key of the cache."""
    if isinstance(argument, np.ndarray):
        kept = "" if argument.flags.aligned else ", unaligned"
        return f"array({argument.dtype.str}, {argument.ndim}{kept})"
    if isinstance(argument, tuple):
        kind = type(argument)
        return f"{kind.__module__}.{kind.__qualname__}({', '.join(map(_describe, argument))})"
    if isinstance(argument, int):
        return "int"
    raise TypeError(f"a kernel cannot have an argument of {type(argument)}")
