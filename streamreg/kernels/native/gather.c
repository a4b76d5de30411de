/* Columns of a table, as rows of float64. */
#include "rows.h"

/* rows that are written at once: eight columns of them fit in the first-level cache */
#define TILE 128
#define GROUP 8

/* Write rows `start` to `start + n` of m columns to `out`, (n, d) in C order: column j, whose type
 * is `types[j]`, at `places[j]` of each row. Eight columns at a time, which mostly fill a line of
 * the cache; columns that are not float64 are widened first. */
EXPORT void gather(const void *const *columns, const int64_t *types, const int64_t *places, int64_t m,
            int64_t start, int64_t n, double *out, int64_t d)
{
    double widened[GROUP][TILE];
    for (int64_t low = 0; low < n; low += TILE) {
        const int64_t height = n - low < TILE ? n - low : TILE;
        for (int64_t first = 0; first < m; first += GROUP) {
            const int width = m - first < GROUP ? (int)(m - first) : GROUP;
            const double *from[GROUP];
            int adjacent = width == GROUP;
            for (int j = 0; j < width; j++) {
                const struct rows column = {
                    .values = columns[first + j], .d = 1, .type = types[first + j]
                };
                from[j] = row_at(&column, start + low);
                if (column.type != FLOAT64 || (uintptr_t)from[j] % sizeof(double)) {
                    widen(&column, start + low, start + low + height, widened[j]);
                    from[j] = widened[j];
                }
                adjacent &= places[first + j] == places[first] + j;
            }
            double *to = out + low * d;
            if (adjacent) {
                to += places[first];
                for (int64_t i = 0; i < height; i++, to += d)
                    for (int j = 0; j < GROUP; j++)
                        to[j] = from[j][i];
            } else {
                for (int j = 0; j < width; j++)
                    for (int64_t i = 0; i < height; i++)
                        to[i * d + places[first + j]] = from[j][i];
            }
        }
    }
}
