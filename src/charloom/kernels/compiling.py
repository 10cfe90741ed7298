"""Compilation of kernels by Numba, into object code that needs nothing of Numba or Python.

Numba compiles every function that a kernel calls into a library of its own, down to machine code,
and each of them again inside its callers. A `subroutine` is compiled into its caller's library
instead, so that the compiler processes everything once. It is kept as LLVM's code for the next
kernels of this process, because most kernels share subroutines, and Numba takes longer than LLVM.

Only modules in which kernels are written import this one. They are imported when a kernel must be
compiled, see `charloom.kernels.kernel`.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import compiler, config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin
from numba.np import arrayobj

from charloom.kernels.numba_subset import Pipeline, target_context

F = TypeVar("F", bound=Callable[..., Any])
INT64 = ir.IntType(64)


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
            library, key = context.active_code_library, (function, sig)
            compiled = vars(library).setdefault("compiled", {})  # missing in Numba's libraries
            if key not in compiled:
                compiled[key] = _compile_into(
                    library, context, function, sig.args, sig.return_type, inline
                )
            return context.call_internal(builder, compiled[key], sig, args)

        return function

    return mark


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """The functions of a kernel, and subroutines of earlier kernels, of which most are needed.

    Attributes:
        compiled: Numba's descriptors of the subroutines, by function and signature.
    """

    # LLVM's code of all subroutines so far, their descriptors, and libraries of Numba's functions.
    _kept: ClassVar[bytes | None] = None
    _kept_compiled: ClassVar[dict[Any, Any]] = {}
    _kept_libraries: ClassVar[list[Any]] = []

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.compiled = dict(self._kept_compiled)
        if self._kept is not None:
            self._linking_libraries.extend(self._kept_libraries)
            # Linking it into an empty module would drop subroutines without a caller.
            self._final_module = binding.parse_bitcode(self._kept)

    def keep(self) -> None:
        """Keep all subroutines for the next kernels."""
        _Library._kept = self._final_module.as_bitcode()
        _Library._kept_compiled = self.compiled
        _Library._kept_libraries = list(self._linking_libraries)

    def _optimize_functions(self, module: Any) -> None:
        # Each function is optimized once, in the complete library.
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = binding.create_new_module_pass_manager(), self._codegen._pass_builder()
        passes.add_global_dead_code_eliminate_pass()  # other kernels' subroutines
        passes.run(self._final_module, builder)
        # Numba optimizes twice, at the highest level. That takes longer, and kernels run no faster.
        passes, builder = self._codegen._module_pass_manager(opt=min(2, config.OPT))
        passes.run(self._final_module, builder)


def _compile_into(
    library: Any, context: Any, function: Any, arguments: Any, returns: Any, inline: bool
) -> Any:
    """Compile a function into a library, and return Numba's descriptor of it."""
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    pipeline = Pipeline(
        context.typing_context, context, library, arguments, returns, flags, locals={}
    )
    made = pipeline.compile_extra(function).fndesc
    # The linker drops a function that was inlined everywhere.
    there = library._final_module.get_function(made.mangled_name)
    there.linkage = "linkonce_odr"
    if inline:
        there.add_function_attribute("alwaysinline")
    return made


def compile_kernel(function: Callable[..., None], arguments: tuple[Any, ...], entry: str) -> bytes:
    """Return the object code of a function.

    Args:
        function: a function that returns nothing.
        arguments: arguments of the types that it is compiled for.
        entry: the name in the object code, of a function of one argument: the address of the words
            that `charloom.kernels.kernel` describes.
    """
    kinds = tuple(map(_type_of, arguments))
    with global_compiler_lock, _without_collector(), target_context() as context:
        library = _Library(context.codegen(), entry)
        made = _compile_into(library, context, function, kinds, types.void, False)
        library.keep()
        module = library.create_ir_module(f"{entry}_words")
        kind = ir.FunctionType(ir.VoidType(), [INT64.as_pointer()])
        emitted = ir.Function(module, kind, entry)
        builder = ir.IRBuilder(emitted.append_basic_block("entry"))
        words = _Words(context, builder, emitted.args[0], kinds)
        values = [words.value(kind) for kind in kinds]
        context.call_internal_no_propagate(builder, made, signature(types.void, *kinds), values)
        builder.ret_void()
        library.add_ir_module(module)
        for other in library._linking_libraries:
            library._final_module.link_in(other._get_module_for_linking(), preserve=True)
        library._optimize_final_module()
        library._final_module.verify()
        code: bytes = context.codegen()._tm.emit_object(library._final_module)
    return code


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Disable the collector of garbage, which would visit all of Numba's objects again and again.

    It would take an eighth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _type_of(argument: Any) -> Any:
    """Return Numba's type of an argument: arrays are contiguous, and may be read-only."""
    if isinstance(argument, np.ndarray):
        dtype = numba.from_dtype(argument.dtype)
        return types.Array(dtype, argument.ndim, "C", aligned=argument.flags.aligned)
    if isinstance(argument, tuple):
        return types.BaseTuple.from_types([_type_of(field) for field in argument], type(argument))
    return types.intp


class _Words:
    """The words that a compiled kernel gets: first a word for each leaf, then the shapes."""

    def __init__(self, context: Any, builder: Any, words: Any, kinds: tuple[Any, ...]) -> None:
        self._context, self._builder, self._words = context, builder, words
        self._next = 0
        self._next_shape = sum(map(_count_leaves, kinds))

    def _load(self, index: int) -> Any:
        return self._builder.load(self._builder.gep(self._words, [INT64(index)]))

    def value(self, kind: Any) -> Any:
        """Return LLVM's value of the next argument."""
        context, builder = self._context, self._builder
        if isinstance(kind, types.BaseTuple):
            return context.make_tuple(builder, kind, [self.value(field) for field in kind.types])
        word = self._load(self._next)
        self._next += 1
        if not isinstance(kind, types.Array):
            return word
        shape = [self._load(self._next_shape + axis) for axis in range(kind.ndim)]
        self._next_shape += kind.ndim
        array = arrayobj.make_array(kind)(context, builder)
        size = INT64(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        strides = [size]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        arrayobj.populate_array(
            array,
            data=builder.inttoptr(word, array.data.type),
            shape=shape,
            strides=strides,
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()


def _count_leaves(kind: Any) -> int:
    if isinstance(kind, types.BaseTuple):
        return sum(map(_count_leaves, kind.types))
    return 1
