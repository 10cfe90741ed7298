"""Building blocks of every kernel: compilation and its cache, SIMD vectors, products, threads."""
