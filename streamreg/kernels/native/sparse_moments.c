/* Sums of stored values of each column, from which moments of all rows follow: see
 * `SparseMomentsState` in kernels/states.py.
 *
 * With one target, all that a value changes is one cache line. Values of one column in one row are
 * added up first, because squares and bounds are of their sum.
 */
#include "sparse.h"
#include <math.h>
#include <stdlib.h>

/* the fields of a column: its origin, weight, Σ s z, Σ s z², bounds, then k pairs Σ s y z, Σ s y */
enum { ORIGIN, WEIGHT, SUM, SQUARES, LOW, HIGH, CROSS };

struct sparse_moments {
    int64_t k;
    double *columns;      /* (d, 6 + 2k) */
    const double *scale;  /* (d,)   or NULL: ones */
    const double *y;      /* (n, k) y less its origin */
    const double *weight; /* (n,)   s, or NULL: ones */
    double *s;            /* ()     Σ s */
    double *check;        /* ()     NaN once a value is NaN or inf, else 0 */
    void *scratch;        /* `sparse_moments_scratch` bytes for the longest row */
};

/* values ahead of which a column is fetched */
#define AHEAD 64

struct entry {
    uint64_t column;
    int64_t position;
    double value;
};

static int compare(const void *a, const void *b)
{
    const struct entry *one = a, *other = b;
    if (one->column != other->column)
        return one->column < other->column ? -1 : 1;
    return one->position < other->position ? -1 : 1;
}

/* Add a value to the sums of its column. */
INLINE void add_value(const struct sparse_moments *p, int64_t k, uint64_t j, double value, double s,
                      const double *y)
{
    double *column = p->columns + j * (uint64_t)(CROSS + 2 * k);
    const double scaled = p->scale ? value * p->scale[j] : value;
    if (__builtin_expect(column[WEIGHT] == 0, 0)) {
        column[ORIGIN] = scaled;
        column[LOW] = column[HIGH] = value;
    }
    const double z = scaled - column[ORIGIN], sz = s * z;
    /* pairs, which a processor loads and stores at once */
    store_pair(column + WEIGHT, load_pair(column + WEIGHT) + (pair){s, sz});
    column[SQUARES] = fma_of(sz, z, column[SQUARES]);
    column[LOW] = value < column[LOW] ? value : column[LOW];
    column[HIGH] = value > column[HIGH] ? value : column[HIGH];
    for (int64_t c = 0; c < k; c++) {
        double *cross = column + CROSS + 2 * c;
        store_pair(cross, fma_pair((pair){sz, s}, (pair){y[c], y[c]}, load_pair(cross)));
    }
}

/* Whether columns ascend from one value to the next: without branches, as the other loops over a
 * whole block, so that the compiler makes vectors of them. */
INLINE int64_t count_falls(int is_wide, const struct sparse_rows *x, int64_t first, int64_t stop)
{
    int64_t falls = 0;
    for (int64_t at = first + 1; at < stop; at++)
        falls += index_at(is_wide, x->indices, at) <= index_at(is_wide, x->indices, at - 1);
    return falls;
}

/* Whether the columns of every row ascend: all falls are between two rows. */
INLINE int all_ascend(int is_wide, const struct sparse_rows *x)
{
    const int64_t count = x->bounds[x->n];
    int64_t between = 0;
    for (int64_t i = 1; i < x->n; i++) {
        const int64_t at = x->bounds[i];
        if (at > x->bounds[i - 1] && at < count)
            between += index_at(is_wide, x->indices, at) <= index_at(is_wide, x->indices, at - 1);
    }
    return count_falls(is_wide, x, 0, count) == between;
}

/* How many rows are before the first one with a column beyond d. */
INLINE int64_t count_valid_rows(int is_wide, const struct sparse_rows *x)
{
    const int64_t count = x->bounds[x->n];
    uint64_t largest = 0;
    for (int64_t at = 0; at < count; at++) {
        const uint64_t j = index_at(is_wide, x->indices, at);
        largest = j > largest ? j : largest;
    }
    if (count == 0 || largest < (uint64_t)x->d)
        return x->n;
    int64_t row = 0;
    for (int64_t at = 0; index_at(is_wide, x->indices, at) < (uint64_t)x->d; at++)
        while (x->bounds[row + 1] <= at + 1)
            row++;
    return row;
}

INLINE int all_finite(int type, const struct sparse_rows *x)
{
    const int64_t count = x->bounds[x->n];
    int64_t bad = 0;
    for (int64_t at = 0; at < count; at++) {
        const double value = value_at(type, x->values, at);
        bad += !(value - value == 0);
    }
    return bad == 0;
}

/* Add a row whose columns do not ascend: those of one column are added up first. */
INLINE void add_sorted(int type, int is_wide, const struct sparse_rows *x, int64_t first, int64_t n,
                       const struct sparse_moments *p, int64_t k, double s, const double *y)
{
    struct entry *row = p->scratch;
    for (int64_t at = 0; at < n; at++)
        row[at] = (struct entry){
            .column = index_at(is_wide, x->indices, first + at), .position = at,
            .value = value_at(type, x->values, first + at),
        };
    qsort(row, (size_t)n, sizeof *row, compare);
    for (int64_t at = 0; at < n;) {
        const uint64_t j = row[at].column;
        double value = 0;
        for (; at < n && row[at].column == j; at++)
            value += row[at].value;
        add_value(p, k, j, value, s, y);
    }
}

INLINE int64_t add_rows_of(int type, int is_wide, int64_t k, const struct sparse_rows *x,
                           const struct sparse_moments *p)
{
    const int64_t count = x->bounds[x->n], width = CROSS + 2 * k;
    const int64_t n = count_valid_rows(is_wide, x);
    const int ascends = all_ascend(is_wide, x);
    double total = *p->s;
    for (int64_t i = 0; i < n; i++) {
        const int64_t first = x->bounds[i], stop = x->bounds[i + 1];
        const double s = p->weight ? p->weight[i] : 1.0, *y = p->y + i * k;
        total += s;
        if (!ascends && count_falls(is_wide, x, first, stop)) {
            add_sorted(type, is_wide, x, first, stop - first, p, k, s, y);
            continue;
        }
        for (int64_t at = first; at < stop; at++) {
            if (at + AHEAD < count)
                __builtin_prefetch(
                    p->columns + index_at(is_wide, x->indices, at + AHEAD) * (uint64_t)width, 1);
            add_value(p, k, index_at(is_wide, x->indices, at), value_at(type, x->values, at), s, y);
        }
    }
    *p->s = total;
    if (!all_finite(type, x))
        *p->check = NAN;
    return n;
}

INLINE int64_t add_any(int type, int is_wide, const struct sparse_rows *x,
                       const struct sparse_moments *p)
{
    /* a constant, so that the compiler unrolls the loop over targets */
    return p->k == 1 ? add_rows_of(type, is_wide, 1, x, p)
                     : add_rows_of(type, is_wide, p->k, x, p);
}

EXPORT int64_t sparse_moments_nbytes(void)
{
    return sizeof(struct sparse_moments);
}

/* Bytes of scratch memory for rows of at most n values. */
EXPORT int64_t sparse_moments_scratch(int64_t n)
{
    return n * (int64_t)sizeof(struct entry);
}

/* Returns the number of rows before the first one with a column beyond d. */
EXPORT int64_t add_sparse_moments(const struct sparse_rows *x, const struct sparse_moments *p)
{
    return FOR_STORED_TYPE(x, add_any, x, p);
}

/* Add the sums b of d columns of `width` fields, moved to the origins of a, to those of a: as the
 * plain form in kernels/sparse_merge.py does, without fused products. */
EXPORT void merge_sparse_moments(int64_t d, int64_t width, double *a, const double *b,
                                 const double *y_shift)
{
    for (; d > 0; d--, a += width, b += width) {
        const double weight = b[WEIGHT], total = b[SUM];
        double move = 0;
        if (weight != 0) {
            if (a[WEIGHT] == 0) {
                a[ORIGIN] = b[ORIGIN];
                a[LOW] = b[LOW];
                a[HIGH] = b[HIGH];
            }
            move = b[ORIGIN] - a[ORIGIN];
            a[LOW] = b[LOW] < a[LOW] || b[LOW] != b[LOW] ? b[LOW] : a[LOW];
            a[HIGH] = b[HIGH] > a[HIGH] || b[HIGH] != b[HIGH] ? b[HIGH] : a[HIGH];
        }
        const double moved = move * weight;
        for (int64_t c = CROSS, at = 0; c < width; c += 2, at++) {
            const double of_y = b[c + 1];
            a[c] += (b[c] + move * of_y) + y_shift[at] * (total + moved);
            a[c + 1] += of_y + y_shift[at] * weight;
        }
        a[SQUARES] += b[SQUARES] + move * (2 * total + moved);
        a[SUM] += total + moved;
        a[WEIGHT] += weight;
    }
}
