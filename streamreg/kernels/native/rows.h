/* Rows in memory, as the loops read them. */
#ifndef STREAMREG_ROWS_H
#define STREAMREG_ROWS_H

#include "lanes.h"

/* rows that loops take at a time */
#define ROWS 4
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < n_rows; r++)

/* The stored types, in the order of `_TYPES` in kernels/compiled.py. */
enum type {
    FLOAT64, FLOAT32, FLOAT16,
    INT8, INT16, INT32, INT64,
    UINT8, UINT16, UINT32, UINT64,
    BOOL, /* one byte: any value but 0 is 1 */
};

/* n rows of d values in C order; a stored value x stands for x·scale - shift */
struct rows {
    const void *values;
    int64_t n;
    int64_t d;
    const double *scale; /* (d,) or NULL: ones */
    const double *shift; /* (d,) or NULL: zeros */
    int64_t type;
    int64_t swapped;  /* whether in the other byte order */
    int64_t in_cache; /* whether they were just written to the cache */
};

/* Whether loops read the rows as they are; others are widened to float64 first, by tiles. */
INLINE int is_direct(const struct rows *x)
{
    return x->type <= FLOAT32 && !x->swapped && !x->scale && !x->shift;
}

INLINE int64_t size_of(int type)
{
    switch (type) {
    case FLOAT64: case INT64: case UINT64: return 8;
    case FLOAT32: case INT32: case UINT32: return 4;
    case FLOAT16: case INT16: case UINT16: return 2;
    default: return 1;
    }
}

/* `type` is a constant in every caller, so that the compiler removes the branch. */
INLINE lanes load_lanes(int type, const void *values, int64_t at)
{
    const char *first = (const char *)values + at * size_of(type);
    return type == FLOAT64 ? load_float64(first) : load_float32(first);
}

INLINE double load_one(int type, const void *values, int64_t at)
{
    double wide;
    float narrow;
    if (type == FLOAT64)
        memcpy(&wide, (const char *)values + at * 8, 8);
    else
        memcpy(&narrow, (const char *)values + at * 4, 4), wide = narrow;
    return wide;
}

INLINE const void *row_at(const struct rows *x, int64_t row)
{
    return (const char *)x->values + row * x->d * size_of(x->type);
}

/* Write rows `start` to `stop` of x to `out` as float64, scaled and shifted. */
void widen(const struct rows *x, int64_t start, int64_t stop, double *out);

/* Rows of `nbytes` of float64: a multiple of `step`, and at least `step`. */
INLINE int64_t rows_within(int64_t nbytes, int64_t d, int64_t step)
{
    const int64_t rows = d ? nbytes / (8 * d) : 0;
    return rows < step ? step : rows - rows % step;
}

/* Rows of a tile that is widened: 32 KiB, which stay in the first-level cache. */
INLINE int64_t widened_rows(int64_t d)
{
    return rows_within(32 << 10, d, ROWS);
}

#endif
