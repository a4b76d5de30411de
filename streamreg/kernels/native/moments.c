/* Means, and sums about the means, a tile at a time.
 *
 * A tile stays in the second-level cache, because it is read twice: for its mean, then for the sums
 * about it. Tiles merge by Chan, Golub & LeVeque (1983): with δ = x̄_b - x̄ₐ and n = nₐ + n_b,
 *
 *     x̄ = x̄ₐ + (n_b / n) δ        M₂ = M₂ₐ + M₂_b + (nₐ n_b / n) δ²
 */
#include "pieces.h"

/* The fields of `MomentsState` in kernels/states.py, for d features and k targets. */
struct moments {
    int64_t k;
    const double *y;      /* (n, k) y less its origin */
    const double *weight; /* (n,)   s, or NULL: ones */
    const double *origin; /* (d,)   o, of scaled values */
    double *s;            /* ()     Σ s */
    double *mean;         /* (d,)   x̄ - o */
    double *m2;           /* (d,)   Σ s (x - x̄)² */
    double *low;          /* (d,)   min x, never scaled */
    double *high;         /* (d,)   max x, never scaled */
    double *y_mean;       /* (k,)   ȳ less the origin of y */
    double *y_m2;         /* (k,)   Σ s (y - ȳ)² */
    double *cross;        /* (k, d) Σ s (y - ȳ)(x - x̄) */
    double *scratch;      /* `moments_scratch` values */
};

/* The number of rows of a tile, 256 KiB of float64 or 8 rows, depends on nothing but d. The bits do
 * not depend on how many rows are added at once, if it is a multiple of these. */
EXPORT int64_t moments_rows(int64_t d)
{
    const int64_t rows = rows_within(256 << 10, d, ROWS);
    return rows < 8 ? 8 : rows;
}

/* The number of sums of a tile: means, squares and products with y of d features, k means of y. */
INLINE int64_t sums_of_tile(int64_t d, int64_t k)
{
    return (2 + (k ? k : 1)) * d + k;
}

/* A tile: its rows, how they are read, and its sums. */
struct tile {
    const void *values;
    int64_t n;
    int64_t d;
    const double *scale;  /* (d,) or NULL */
    const double *y;      /* (n, k) */
    const double *weight; /* (n,) or NULL */
    double total;         /* Σ s */
    double *mean;         /* (d,) */
    double *squares;      /* (d,) */
    double *cross;        /* (k, d) */
    double *y_mean;       /* (k,) */
};

INLINE double weight_of(const struct tile *t, int64_t row)
{
    return t->weight ? t->weight[row] : 1.0;
}

/* mean += Σ s (x - o), and the bounds */
INLINE void add_sums(int type, int is_scaled, int n_rows, const struct tile *t, int64_t row,
                     const struct moments *m)
{
    const int64_t d = t->d;
    double s[ROWS];
    EACH_ROW s[r] = weight_of(t, row + r);
    int64_t j = 0;
    for (; j + N_LANES <= d; j += N_LANES) {
        lanes low = load_float64(m->low + j), high = load_float64(m->high + j);
        lanes origin = load_float64(m->origin + j), sum = load_float64(t->mean + j);
        EACH_ROW
        {
            lanes value = load_lanes(type, t->values, (row + r) * d + j);
            low = min_lanes(value, low);
            high = max_lanes(value, high);
            if (is_scaled)
                value = multiply_lanes(value, load_float64(t->scale + j));
            sum = fma_lanes(all_lanes(s[r]), subtract_lanes(value, origin), sum);
        }
        store_float64(m->low + j, low);
        store_float64(m->high + j, high);
        store_float64(t->mean + j, sum);
    }
    for (; j < d; j++)
        EACH_ROW
        {
            const double value = load_one(type, t->values, (row + r) * d + j);
            if (value < m->low[j])
                m->low[j] = value;
            if (value > m->high[j])
                m->high[j] = value;
            const double scaled = is_scaled ? value * t->scale[j] : value;
            t->mean[j] = fma_of(s[r], scaled - m->origin[j], t->mean[j]);
        }
}

/* squares += Σ s z², cross += Σ s (y - ȳ) z, with z = x - o - mean */
INLINE void add_centred(int type, int is_scaled, int n_rows, const struct tile *t, int64_t row,
                        const struct moments *m)
{
    const int64_t d = t->d;
    for (int64_t k = 0; k < m->k || k == 0; k++) {
        double s[ROWS], sy[ROWS];
        EACH_ROW
        {
            s[r] = weight_of(t, row + r);
            sy[r] = m->k ? s[r] * (t->y[(row + r) * m->k + k] - t->y_mean[k]) : 0;
        }
        double *cross = t->cross + k * d;
        int64_t j = 0;
        for (; j + N_LANES <= d; j += N_LANES) {
            lanes origin = load_float64(m->origin + j), mean = load_float64(t->mean + j);
            lanes squares = load_float64(t->squares + j), sums = load_float64(cross + j);
            EACH_ROW
            {
                lanes z = load_lanes(type, t->values, (row + r) * d + j);
                if (is_scaled)
                    z = multiply_lanes(z, load_float64(t->scale + j));
                z = subtract_lanes(subtract_lanes(z, origin), mean);
                if (k == 0)
                    squares = fma_lanes(multiply_lanes(all_lanes(s[r]), z), z, squares);
                sums = fma_lanes(all_lanes(sy[r]), z, sums);
            }
            store_float64(t->squares + j, squares);
            store_float64(cross + j, sums);
        }
        for (; j < d; j++)
            EACH_ROW
            {
                double z = load_one(type, t->values, (row + r) * d + j);
                z = (is_scaled ? z * t->scale[j] : z) - m->origin[j] - t->mean[j];
                if (k == 0)
                    t->squares[j] = fma_of(s[r] * z, z, t->squares[j]);
                cross[j] = fma_of(sy[r], z, cross[j]);
            }
    }
}

INLINE void sum_rows(int type, int is_scaled, struct tile *t, const struct moments *m)
{
    int64_t i = 0;
    for (; i + ROWS <= t->n; i += ROWS)
        add_sums(type, is_scaled, ROWS, t, i, m);
    for (; i < t->n; i++)
        add_sums(type, is_scaled, 1, t, i, m);
    for (int64_t j = 0; j < t->d; j++)
        t->mean[j] /= t->total;
    for (i = 0; i + ROWS <= t->n; i += ROWS)
        add_centred(type, is_scaled, ROWS, t, i, m);
    for (; i < t->n; i++)
        add_centred(type, is_scaled, 1, t, i, m);
}

/* Merge a tile: update the means and add its sums. */
static void merge(const struct tile *t, const struct moments *m)
{
    const double share = t->total / (*m->s + t->total), ratio = *m->s * share;
    for (int64_t k = 0; k < m->k; k++) {
        const double y_delta = t->y_mean[k] - m->y_mean[k];
        double y_squares = ratio * y_delta * y_delta;
        for (int64_t i = 0; i < t->n; i++) {
            const double z = t->y[i * m->k + k] - t->y_mean[k];
            y_squares = fma_of(weight_of(t, i) * z, z, y_squares);
        }
        m->y_m2[k] += y_squares;
        m->y_mean[k] = fma_of(share, y_delta, m->y_mean[k]);
        const double *cross = t->cross + k * t->d;
        double *sums = m->cross + k * t->d;
        for (int64_t j = 0; j < t->d; j++)
            sums[j] += fma_of(ratio * y_delta, t->mean[j] - m->mean[j], cross[j]);
    }
    for (int64_t j = 0; j < t->d; j++) {
        const double delta = t->mean[j] - m->mean[j];
        m->m2[j] += fma_of(ratio * delta, delta, t->squares[j]);
        m->mean[j] = fma_of(share, delta, m->mean[j]);
    }
    *m->s += t->total;
}

static void add(const void *sums, const struct rows *x, int64_t row)
{
    const struct moments *m = sums;
    const int64_t d = x->d, step = moments_rows(d), n_sums = sums_of_tile(d, m->k);
    const int direct = x->type <= FLOAT32 && !x->swapped;
    for (int64_t start = 0; start < x->n; start += step) {
        const int64_t stop = start + step < x->n ? start + step : x->n;
        struct tile t = {
            .values = row_at(x, start), .n = stop - start, .d = d, .scale = x->scale,
            .y = m->y + (row + start) * m->k,
            .weight = m->weight ? m->weight + row + start : NULL,
            .mean = m->scratch, .squares = m->scratch + d, .cross = m->scratch + 2 * d,
            .y_mean = m->scratch + n_sums - m->k,
        };
        memset(m->scratch, 0, n_sums * sizeof(double));
        for (int64_t i = 0; i < t.n; i++) {
            t.total += weight_of(&t, i);
            for (int64_t k = 0; k < m->k; k++)
                t.y_mean[k] = fma_of(weight_of(&t, i), t.y[i * m->k + k], t.y_mean[k]);
        }
        for (int64_t k = 0; k < m->k; k++)
            t.y_mean[k] /= t.total;
        if (!direct) {
            struct rows stored = *x;
            stored.scale = NULL;
            widen(&stored, start, stop, m->scratch + n_sums);
            t.values = m->scratch + n_sums;
        }
        if (direct && x->type == FLOAT32)
            x->scale ? sum_rows(FLOAT32, 1, &t, m) : sum_rows(FLOAT32, 0, &t, m);
        else
            x->scale ? sum_rows(FLOAT64, 1, &t, m) : sum_rows(FLOAT64, 0, &t, m);
        merge(&t, m);
    }
}

/* The number of values of scratch memory: the sums of a tile, and a tile that is widened. */
EXPORT int64_t moments_scratch(int64_t d, int64_t k)
{
    return sums_of_tile(d, k) + moments_rows(d) * d;
}

EXPORT int64_t moments_nbytes(void)
{
    return sizeof(struct moments);
}

/* Returns how many rows were added: fewer if files could not be read. Files are read in whole
 * tiles, so that the result is bitwise identical to that of rows in memory. */
EXPORT int64_t add_moments(const struct rows *x, const struct moments *m, struct files *from)
{
    return add_pieces(x, from, moments_rows(x->d), m, add);
}
