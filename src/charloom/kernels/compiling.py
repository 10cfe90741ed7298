"""Compilation of kernels, and the cache of compiled code.

Numba compiles every function that a kernel calls into a library of its own, down to machine code,
and each of them again inside its callers. A `subroutine` is compiled into its caller's library
instead, so that the compiler processes everything once.

A Kernel is compiled when it is first needed, and cached in a file for the next process. Numba's own
cache fails where neither the package's folder nor a home is writable. It notices changes only in
the kernel's own file, and two processes that compile at once can corrupt its index. Here each
compiled kernel has its own file, which appears whole or not at all. Its name is a digest of
everything the code depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import platform
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
import platformdirs
from numba import types
from numba.core import compiler
from numba.core.caching import CompileResultCacheImpl
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

F = TypeVar("F", bound=Callable[..., Any])
LOG = logging.getLogger("charloom")
# Folders with sources of kernels.
SOURCES = ("kernels", "engines/compiled", "ngrams", "context_mixing", "compression")


def subroutine(returns: Any = types.void, inline: bool = False) -> Callable[[F], F]:
    """Make a function callable from kernels, where it returns a value of the type `returns`."""

    def mark(function: F) -> F:
        class Template(AbstractTemplate):  # type: ignore[misc]
            key = function

            def generic(self, args: Any, kws: Any) -> Any:
                return None if kws else signature(returns, *map(types.unliteral, args))

        infer_global(function, types.Function(Template))

        @lower_builtin(function, types.VarArg(types.Any))  # type: ignore[untyped-decorator]
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            library = context.active_code_library
            compiled = library.__dict__.setdefault("_charloom", {})
            key = function, sig
            if key not in compiled:
                flags = compiler.Flags()
                flags.no_compile = True
                flags.no_cpython_wrapper = True
                flags.no_cfunc_wrapper = True
                flags.error_model = "numpy"
                result = compiler.compile_internal(
                    context.typing_context, context, library, function, sig.args,
                    sig.return_type, flags, locals={},
                )  # fmt: skip
                compiled[key] = result.fndesc
                # The linker drops a function that was inlined everywhere.
                made = library._final_module.get_function(result.fndesc.mangled_name)
                made.linkage = "linkonce_odr"
                if inline:
                    made.add_function_attribute("alwaysinline")
            return context.call_internal(builder, compiled[key], sig, args)

        return function

    return mark


class Kernel:
    """A function to be compiled by Numba that returns nothing and runs without Python's lock."""

    def __init__(self, function: Callable[..., None], what: str) -> None:
        self._function = function
        self._what = what  # for the notice
        self._dispatcher: Any = None
        self._lock = threading.Lock()
        self._ready: Callable[..., None] | None = None

    def compiled(self, arguments: tuple[Any, ...]) -> Callable[..., None]:
        """Return a callable that runs the kernel on arguments of these types.

        The kernel is compiled, or read from its file, on the first call. Only the arguments'
        dtypes can differ between calls.
        """
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = numba.njit(nogil=True, error_model="numpy", cache=False)(
                    self._function
                )
                self._dispatcher._cache = _Cache(self._what)
            self._dispatcher.compile(tuple(numba.typeof(argument) for argument in arguments))
        dispatcher: Callable[..., None] = self._dispatcher
        return dispatcher

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel on arguments that have the same types in every call, which is faster."""
        if self._ready is None:
            self._ready = self.compiled(arguments)
        self._ready(*arguments)


class _Cache:
    """The interface through which Numba's dispatcher loads and saves compiled code."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.cache_path = None

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        folder = cache_folder()
        if folder is not None:
            path = folder / _file_name(self._what, sig, target_context.codegen())
            # Any error is suppressed, because the kernel can be compiled again.
            with contextlib.suppress(Exception):
                data = path.read_bytes()
                digest, payload = data[:32], data[32:]
                if hashlib.sha256(payload).digest() == digest:
                    return CompileResultCacheImpl.rebuild(
                        None, target_context, pickle.loads(payload)
                    )
        often = "once on this machine"
        if folder is None:
            often = "in every process, because no cache folder can be written"
        LOG.warning("compiling the kernel for %s: some seconds, %s", self._what, often)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        folder = cache_folder()
        if folder is None:
            return
        payload = pickle.dumps(CompileResultCacheImpl.reduce(None, data))
        path = folder / _file_name(self._what, sig, data.codegen)
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".part-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink()
                raise


def _file_name(what: str, sig: Any, codegen: Any) -> str:
    """Return a name with two digests: of sources and versions, and of types and processor."""
    digest = hashlib.sha256(repr((sig, codegen.magic_tuple())).encode())
    return f"{_name_begins(what)}{digest.hexdigest()[:32]}.kernel"


def _name_begins(what: str) -> str:
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in SOURCES:
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    versions = (numba.__version__, llvmlite.__version__, platform.python_version())
    digest.update(repr(versions).encode())
    return f"{what.replace(' ', '-')}-{digest.hexdigest()[:32]}-"


def is_kept(what: str) -> bool:
    """Return whether a kernel of these sources was compiled before, for any type."""
    folder = cache_folder()
    return folder is not None and any(folder.glob(_name_begins(what) + "*"))


def cache_folder() -> Path | None:
    """Return the folder of compiled kernels; None if no candidate is writable.

    The candidates are NUMBA_CACHE_DIR if it is set, the user's cache folder, and a folder for
    temporary files. A file is code that will be run, so the folder must be the user's own.
    """
    places = [Path(platformdirs.user_cache_dir("charloom")) / "kernels"]
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        places.insert(0, Path(chosen) / "charloom")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    places.append(Path(tempfile.gettempdir()) / f"charloom-kernels-{user}")
    for place in places:
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = place.lstat()
            own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            if stat.S_ISDIR(found.st_mode) and own and not found.st_mode & 0o022:
                with tempfile.TemporaryFile(dir=place):
                    return place
    return None
