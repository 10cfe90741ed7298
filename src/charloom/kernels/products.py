"""Matrix products inside Numba kernels, made for the thin matrices of a recurrent network.

A library's product packs its operands in every call, which is too slow for a time loop. Here the
weights are packed once for a whole window: in panels two vectors wide, each panel's rows one after
the other in memory. The inner loop keeps a block of up to fourteen rows and two vectors of the
result in registers, and adds one outer product for each k. A block of fewer rows has more vectors:
about 24 sums at once, so that the latency of one is hidden by the others.

Every entry of a result is summed in the order of k, whatever the shapes: an entry's bytes depend on
nothing but its row and its column.

M: rows of a result; N: its columns, rounded up to whole vectors; K: length of the sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from charloom.kernels.arrays import INT64, Tile
from charloom.kernels.compiling import subroutine
from charloom.kernels.sizes import MOST_ROWS, OUTER_PIECE, VECTOR_REGISTERS, lanes
from charloom.kernels.vectors import (
    INT32,
    float_type,
    load,
    load_first,
    store,
    store_first,
    transpose,
    vector_type,
    width,
)

# The width of the largest blocks in vectors, for up to a number of rows.
_WIDTHS = ((3, 8), (6, 4), (14, 2)) if VECTOR_REGISTERS == 32 else ((1, 8), (3, 4), (6, 2))
PREFETCHED = 64  # rows of a panel
_AS_WRITTEN = {1: (8, 7, 6, 5, 4, 3, 2, 1)}  # other row counts take powers of two


def _widths(rows: int) -> tuple[int, ...]:
    """Return the block widths, in vectors, for a number of rows; the widest first."""
    most = next(width for largest, width in _WIDTHS if rows <= largest)
    return tuple(n for n in _AS_WRITTEN.get(rows, (8, 4, 2, 1)) if n <= most)


@subroutine(types.intp, inline=True)
def block_vectors(rows):
    """Return the width of a block, in vectors, for a product of a number of rows."""
    for largest, vectors in _WIDTHS:
        if rows <= largest:
            return vectors
    return 2


def _block_function(module: Any, dtype: Any, rows: int, vectors: int, by_columns: bool) -> Any:
    """Return LLVM's function for one block: c (rows × vectors) = or += Σ_k a(·, k) b(k, ·).

    a(i, k) is a[i·lda + k], or with `by_columns` a[i + k·lda]. A row of b is read from two vectors
    in each of several panels, `panel` numbers apart; its next row is ldb further.
    """
    name = f"charloom_block_{dtype}_{rows}_{vectors}_{'columns' if by_columns else 'rows'}"
    if name in module.globals:
        return module.globals[name]
    number, vector, count = float_type(dtype), vector_type(dtype), lanes(dtype)
    address = number.as_pointer()
    function = ir.Function(
        module,
        ir.FunctionType(ir.VoidType(), [address, INT64, address, INT64, address, *[INT64] * 5]),
        name,
    )
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    c, ldc, a, lda, b, panel, ldb, tail, length, add = function.args
    entry, loop, end = (function.append_basic_block(n) for n in ("entry", "loop", "end"))
    builder = ir.IRBuilder(entry)
    fma = cgutils.get_or_insert_function(
        module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{count}f{dtype.bitwidth}"
    )
    byte = ir.IntType(8).as_pointer()
    prefetch = cgutils.get_or_insert_function(
        module, ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32]), "llvm.prefetch.p0"
    )

    def vector_at(base: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

    def load(base: Any, offset: Any) -> Any:
        value = builder.load(vector_at(base, offset))
        value.align = dtype.bitwidth // 8
        return value

    def times(value: Any, factor: int) -> Any:
        return builder.mul(value, INT64(factor)) if factor else INT64(0)

    grid = [(i, v) for i in range(rows) for v in range(vectors)]
    in_c = {(i, v): builder.add(times(ldc, i), INT64(v * count)) for i, v in grid}
    in_b = [builder.add(times(panel, v // 2), INT64(v % 2 * count)) for v in range(vectors)]
    in_a = [INT64(i) if by_columns else times(lda, i) for i in range(rows)]
    zero = ir.Constant(vector, [0.0] * count)
    with builder.if_else(builder.icmp_signed("!=", add, INT64(0))) as (adding, anew):
        with adding:
            old = {cell: load(c, in_c[cell]) for cell in grid}
            from_adding = builder.block
        with anew:
            from_anew = builder.block
    start = {}
    for cell in grid:
        start[cell] = builder.phi(vector)
        start[cell].add_incoming(old[cell], from_adding)
        start[cell].add_incoming(zero, from_anew)
    first_tail = builder.gep(b, [in_b[-1]])
    before = builder.block
    builder.cbranch(builder.icmp_signed(">", length, INT64(0)), loop, end)

    builder.position_at_end(loop)
    left, a_k, b_k, tail_k = (builder.phi(kind) for kind in (INT64, *[address] * 3))
    sums = {cell: builder.phi(vector) for cell in grid}
    # A single vector at the end has its own distance between rows.
    odd = vectors % 2
    b_row = [load(b_k, offset) for offset in in_b[: vectors - odd]]
    if odd:
        b_row.append(load(tail_k, INT64(0)))
    if not by_columns and rows > _WIDTHS[1][0]:
        # Later rows of the panels are prefetched, because with many hidden units the weights come
        # from a far cache.
        for offset in in_b:
            ahead = builder.gep(b_k, [builder.add(builder.mul(ldb, INT64(PREFETCHED)), offset)])
            builder.call(prefetch, [builder.bitcast(ahead, byte), *map(INT32, (0, 3, 1))])
    lanes_0 = ir.Constant(ir.VectorType(INT32, count), [0] * count)
    undefined = ir.Constant(vector, ir.Undefined)
    added = {}
    for i in range(rows):
        value = builder.load(builder.gep(a_k, [in_a[i]]))
        value = builder.insert_element(undefined, value, INT32(0))
        value = builder.shuffle_vector(value, undefined, lanes_0)
        for v in range(vectors):
            added[i, v] = builder.call(fma, [value, b_row[v], sums[i, v]])
    next_a = builder.gep(a_k, [lda if by_columns else INT64(1)])
    next_b = builder.gep(b_k, [ldb])
    next_tail = builder.gep(tail_k, [tail])
    still = builder.sub(left, INT64(1))
    for phi, first, following in (
        (left, length, still),
        (a_k, a, next_a),
        (b_k, b, next_b),
        (tail_k, first_tail, next_tail),
        *((sums[cell], start[cell], added[cell]) for cell in grid),
    ):
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed(">", still, INT64(0)), loop, end)

    builder.position_at_end(end)
    results = {}
    for cell in grid:
        results[cell] = builder.phi(vector)
        results[cell].add_incoming(start[cell], before)
        results[cell].add_incoming(added[cell], loop)
    for cell in grid:
        written = builder.store(results[cell], vector_at(c, in_c[cell]))
        written.align = dtype.bitwidth // 8
    builder.ret_void()
    return function


def _any_block_function(module: Any, dtype: Any, by_columns: bool) -> Any:
    """Return LLVM's function that calls the block function for a number of rows.

    It takes the widest block of at most `vectors` vectors, and returns its width. Its parameters
    are those of the block function, because the innermost call passes them in registers.
    """
    name = f"charloom_any_block_{dtype}_{'columns' if by_columns else 'rows'}"
    if name in module.globals:
        return module.globals[name]
    address = float_type(dtype).as_pointer()
    function = ir.Function(
        module,
        ir.FunctionType(INT64, [address, INT64, address, INT64, address, *[INT64] * 7]),
        name,
    )
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    *operands, rows, vectors = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    impossible = function.append_basic_block("impossible")
    switch = builder.switch(builder.add(builder.mul(rows, INT64(16)), vectors), impossible)
    for r in range(1, MOST_ROWS + 1):
        cases = {}
        for n in _widths(r):
            cases[n] = function.append_basic_block(f"block_{r}_{n}")
            builder.position_at_end(cases[n])
            builder.call(_block_function(module, dtype, r, n, by_columns), operands)
            builder.ret(INT64(n))
        for available in range(1, _widths(r)[0] + 1):
            fitting = next(n for n in _widths(r) if n <= available)
            switch.add_case(INT64(16 * r + available), cases[fitting])
    builder.position_at_end(impossible)
    builder.unreachable()
    return function


class Panels(NamedTuple):
    """A packed matrix (K, N) in panels of two vectors, see `pack`.

    The first panel starts at `offset` of the array.
    """

    array: Any
    offset: int
    stride: int  # the distance between panels
    row: int  # between a panel's rows
    tail: int  # between the rows of a last panel of a single vector


def _blocks(by_columns: bool) -> Any:
    """Return the intrinsic that computes one block of up to MOST_ROWS rows.

    The block is as wide as possible with at most `vectors` vectors; its width is returned.
    """

    @intrinsic
    def block(context, c, a, b, length, add, rows, vectors):
        dtype = c.types[0].dtype

        def emit(context, builder, sig, args):
            operands = []
            for operand, kind in zip(args[:3], (c, a, b), strict=True):
                array, offset, *strides = (
                    builder.extract_value(operand, index) for index in range(kind.count)
                )
                operands += [builder.gep(array, [offset]), *strides]
            function = _any_block_function(builder.module, dtype, by_columns)
            return builder.call(function, [*operands, *args[3:]])

        return types.intp(c, a, b, *[types.intp] * 4), emit

    return block


_block_by_rows = _blocks(by_columns=False)
_block_by_columns = _blocks(by_columns=True)


@subroutine(inline=True)
def product(c, a, b, m, n, k, add):
    """Compute c (M, N) = a (M, K) · b (K, N), or with `add` c += a · b.

    c and a are Tiles, b is Panels; n counts vectors.
    """
    lanes_ = width(c.array)
    if m < 1:
        return
    count = (m + MOST_ROWS - 1) // MOST_ROWS
    widest = block_vectors((m + count - 1) // count)
    column = 0
    while column < n:
        vectors = min(widest, n - column)
        row = 0
        done = vectors
        panels = Panels(b.array, b.offset + column // 2 * b.stride, b.stride, b.row, b.tail)
        for block in range(count):
            rows = (m - row + count - block - 1) // (count - block)
            done = _block_by_rows(
                Tile(c.array, c.offset + row * c.stride + column * lanes_, c.stride),
                Tile(a.array, a.offset + row * a.stride, a.stride),
                panels, k, add, rows, vectors,
            )  # fmt: skip
            row += rows
        column += done


LEAST_COPIED, FAR_APART = 64, 384  # rows, and the numbers between two of them


@subroutine(types.intp)
def sliver_width(lanes):
    """Return the width of a block's rows in a copied piece: whole vectors."""
    return (MOST_ROWS + lanes - 1) // lanes * lanes


@subroutine()
def outer_product(c, a, b, scratch, m, n, k, add):
    """Compute c (M, N) = aᵀ b, or with `add` c += aᵀ b, for a (K, M) and b (K, N).

    The result is the sum over k of the rows' outer products, taken in pieces short enough for the
    nearest cache. Rows of a and b can be far apart, each on its own page of memory. Because the
    processor caches the addresses of few pages, a long piece is copied together first.

    Args:
        c: Tile of the result.
        a: Tile of the left operand.
        b: Tile of the right operand.
        scratch: flat array for the copies, `outer_scratch` numbers long.
        m: M.
        n: N, in vectors.
        k: K.
        add: 1 to add to c, 0 to overwrite it.
    """
    lanes_ = width(c.array)
    across = 2 * lanes_
    sliver = sliver_width(lanes_)
    count = (m + MOST_ROWS - 1) // MOST_ROWS
    b_copy = OUTER_PIECE * sliver
    for piece in range(0, k, OUTER_PIECE):
        length = min(OUTER_PIECE, k - piece)
        copied = length >= LEAST_COPIED and a.stride >= FAR_APART
        if copied:
            for column in range(n):
                to = b_copy + column // 2 * across * length + column % 2 * lanes_
                at = b.offset + piece * b.stride + column * lanes_
                for i in range(length):
                    store(scratch, to + i * across, load(b.array, at + i * b.stride))
        row = 0
        for block in range(count):
            rows = (m - row + count - block - 1) // (count - block)
            widest = block_vectors(rows)
            at = a.offset + piece * a.stride + row
            if copied:
                for j in range(0, rows, lanes_):
                    kept = min(lanes_, rows - j)
                    for i in range(length):
                        x = load_first(a.array, at + i * a.stride + j, kept)
                        store(scratch, i * sliver + j, x)
            column = 0
            while column < n:
                vectors = min(widest, n - column)
                to = Tile(c.array, c.offset + row * c.stride + column * lanes_, c.stride)
                adds = 1 if piece > 0 else add
                if copied:
                    panel = across * length
                    column += _block_by_columns(
                        to,
                        Tile(scratch, 0, sliver),
                        Panels(scratch, b_copy + column // 2 * panel, panel, across, across),
                        length, adds, rows, vectors,
                    )  # fmt: skip
                else:
                    start = b.offset + piece * b.stride + column * lanes_
                    column += _block_by_columns(
                        to,
                        Tile(a.array, at, a.stride),
                        Panels(b.array, start, across, b.stride, b.stride),
                        length, adds, rows, vectors,
                    )  # fmt: skip
            row += rows


@subroutine()
def pack(panels, source, by_rows, k, n, rows, first, last):
    """Pack a matrix (K, N) into panels of two vectors, those from `first` to before `last`.

    Args:
        panels: Panels to write.
        source: Tile of the matrix, (K, N), or of its transpose, (N, K).
        by_rows: 1 for a source (K, N), 0 for its transpose.
        k: K.
        n: N.
        rows: number of rows of a panel; rows that the source lacks are zero.
        first: index of the first panel to write.
        last: index of the first panel not to write.

    The rows of a last panel of a single vector can be less than a vector apart. Then a row is
    followed by the next one instead of zeros.
    """
    packed = panels.array
    lanes_ = width(packed)
    across = 2 * lanes_
    zeros = load_first(source.array, source.offset, 0)
    for index in range(first, last):
        to = panels.offset + index * panels.stride
        between = panels.tail if n - index * across <= lanes_ else across
        for column in range(0, across, lanes_):
            n0 = index * across + column
            columns = min(lanes_, n - n0)
            if columns <= 0:
                continue  # because no product reads it
            kept = min(lanes_, between)
            if by_rows:
                at = source.offset + n0
                if columns == lanes_:
                    for row in range(k):
                        x = load(source.array, at + row * source.stride)
                        store(packed, to + row * between + column, x)
                else:
                    for row in range(k):
                        x = load_first(source.array, at + row * source.stride, columns)
                        store_first(packed, to + row * between + column, x, kept)
            else:
                at = source.offset + n0 * source.stride
                for row in range(0, k, lanes_):
                    transpose(
                        Tile(packed, to + row * between + column, between),
                        Tile(source.array, at + row, source.stride),
                        columns, min(lanes_, k - row), kept, zeros,
                    )  # fmt: skip
            for row in range(k, rows):
                for j in range(kept):
                    packed[to + row * between + column + j] = 0.0
