"""The part of Numba that kernels use, because all of it takes longer than the kernels.

Numba's contexts know how to type and to lower every function of NumPy, and look through most of
them for each `a + b`. Their first use imports SciPy where it is installed. The contexts here know
numbers, tuples, loops and `math`, and definitions of kernels. Numba's pipeline has passes
for closures, generators, parallel loops and messages, after which it examines every block again.
The pipeline here has the passes that kernels need.

Numba's own contexts and pipeline are not changed, and compile a user's functions. The ones here are
a target of their own, as Numba's interface for other processors has it. Where another version of
Numba lacks something, the import of this module or the first kernel fails with its name.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numba
from numba import types
from numba.core import compiler, typed_passes, untyped_passes
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext, CPUTargetOptions
from numba.core.descriptors import TargetDescriptor
from numba.core.dispatcher import Dispatcher
from numba.core.imputils import Registry as CodeRegistry
from numba.core.target_extension import (
    CPU,
    dispatcher_registry,
    jit_registry,
    target_override,
    target_registry,
)
from numba.core.typing import mathdecl, npydecl
from numba.core.typing.context import BaseContext
from numba.core.typing.templates import AbstractTemplate, signature
from numba.core.typing.templates import Registry as TypesRegistry
from numba.cpython import (  # each registers its functions
    builtins,  # noqa: F401
    iterators,  # noqa: F401
    mathimpl,
    numbers,  # noqa: F401
    rangeobj,  # noqa: F401
    tupleobj,  # noqa: F401
)
from numba.np import arrayobj  # noqa: F401

_NAME = "charloom"  # of the target

# The passes of `numba.core.compiler.DefaultPassBuilder` without the needless ones. Kernels have no
# functions in functions. LLVM removes dead branches. Deletions of variables would count references,
# but kernels have no objects, and LLVM would remove more.
_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.GenericRewrites,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.NativeLowering,
)

_TYPES, _CODE = TypesRegistry(), CodeRegistry("code")
npydecl.register_number_classes(_TYPES.register_global)  # np.float32 and the others


def _extreme(function: Any, better: Any) -> None:
    """Define min or max of numbers, which Numba compiles as a function in Python for each type."""

    @_TYPES.register_global(function)
    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) < 2 or not all(isinstance(a, types.Number) for a in args):
                return None
            kind = self.context.unify_types(*args)
            return kind and signature(kind, *[kind] * len(args))

    @_CODE.lower(function, types.VarArg(types.Number))  # type: ignore[untyped-decorator]
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        compared = context.get_function(
            better, signature(types.boolean, sig.return_type, sig.return_type)
        )
        result = args[0]
        for value in args[1:]:  # the first one of equals, and of NaN and another, as in Python
            result = builder.select(compared(builder, (value, result)), value, result)
        return result


_extreme(min, operator.lt)
_extreme(max, operator.gt)


@_TYPES.register_global(int)
class _Int(AbstractTemplate):  # type: ignore[misc]
    """int(number), which Numba compiles as a function in Python too."""

    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) != 1 or not isinstance(args[0], (types.Integer, types.Float)):
            return None
        kind = types.unliteral(args[0])
        return signature(kind if isinstance(kind, types.Integer) else types.intp, kind)


@_CODE.lower(int, types.Number)  # type: ignore[untyped-decorator]
def _int(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.cast(builder, args[0], sig.args[0], sig.return_type)


class _TypingContext(BaseContext):  # type: ignore[misc]
    """Numba's types of functions and calls, each of which it would search for again."""

    def init(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all types, because modules of kernels have defined more."""
        self._calls: dict[Any, Any] = {}
        self._functions_found: dict[Any, Any] = {}

    def load_additional_registries(self) -> None:
        self.install_registry(mathdecl.registry)
        self.install_registry(_TYPES)

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        if kws:
            return super().resolve_function_type(func, args, kws)
        key = func, tuple(args)
        if key not in self._calls:
            self._calls[key] = super().resolve_function_type(func, args, kws)
        return self._calls[key]

    def resolve_value_type(self, val: Any) -> Any:
        if not isinstance(val, (BuiltinFunctionType, FunctionType)):
            return super().resolve_value_type(val)
        if val not in self._functions_found:
            self._functions_found[val] = super().resolve_value_type(val)
        return self._functions_found[val]


class _TargetContext(CPUContext):  # type: ignore[misc]
    def load_additional_registries(self) -> None:
        self.install_registry(mathimpl.registry)
        self.install_registry(_CODE)

    def post_lowering(self, module: Any, library: Any) -> None:
        """Add nothing: kernels have no objects, whose references Numba's runtime would count."""


class _Descriptor(TargetDescriptor):  # type: ignore[misc]
    """The two contexts, as Numba finds them from intrinsics."""

    options = CPUTargetOptions

    @functools.cached_property
    def typing_context(self) -> Any:
        return _TypingContext()

    @functools.cached_property
    def target_context(self) -> Any:
        return _TargetContext(self.typing_context, _NAME)


class _Target(CPU):  # type: ignore[misc]
    """A target in Numba's list of them, so that intrinsics do not load the whole of its own."""


class _Dispatcher(Dispatcher):
    targetdescr = _Descriptor(_NAME)


target_registry[_NAME] = _Target
dispatcher_registry[_Target] = _Dispatcher
# Numba looks for it before it knows whether a function has an implementation in Python.
jit_registry[_Target] = functools.partial(numba.jit, _target=_NAME)


@contextlib.contextmanager
def target_context() -> Iterator[Any]:
    """Yield the context of all kernels, with the definitions of modules imported since."""
    with target_override(_NAME):
        context = _Dispatcher.targetdescr.target_context
        context.refresh()
        context.typing_context.forget()
        yield context


class _Passes(PassManager):  # type: ignore[misc]
    """The passes, one after the other, without a record of each."""

    def run(self, state: Any) -> None:
        for made, _ in self.passes:
            made().run_pass(state)


class Pipeline(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's compiler of one function, up to LLVM's code in its library."""

    def define_pipelines(self) -> list[Any]:
        passes = _Passes("kernels")
        for made in _PASSES:
            passes.add_pass(made)
        return [passes]
