/* Texts to columns of X, and rows of such columns put in order. */
#include <stdlib.h>

#include "lanes.h"

INLINE uint32_t rotated(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

/* Return x mixed as a block of MurmurHash3. */
INLINE uint32_t mixed(uint32_t x)
{
    return rotated(x * 0xcc9e2d51u, 15) * 0x1b873593u;
}

/* MurmurHash3_x86_32 with seed 0, by Austin Appleby, who placed it in the public domain. */
static uint32_t murmur(const unsigned char *text, int64_t nbytes)
{
    uint32_t h = 0;
    const int64_t whole = nbytes / 4 * 4;
    for (int64_t at = 0; at < whole; at += 4) {
        const uint32_t block = text[at] | (uint32_t)text[at + 1] << 8
                               | (uint32_t)text[at + 2] << 16 | (uint32_t)text[at + 3] << 24;
        h = rotated(h ^ mixed(block), 13) * 5 + 0xe6546b64u;
    }
    uint32_t tail = 0;
    for (int64_t at = nbytes; at-- > whole;)
        tail = tail << 8 | text[at];
    if (whole < nbytes)
        h ^= mixed(tail);
    h ^= (uint32_t)nbytes;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

INLINE int64_t bound(const void *bounds, int64_t is_wide, int64_t at)
{
    return is_wide ? ((const int64_t *)bounds)[at] : ((const int32_t *)bounds)[at];
}

/* Whether a number, a date or a truth value may be written in another way too: see levels.py. */
static int may_be_respelled(const char *text, int64_t nbytes)
{
    if (nbytes == 0)
        return 0;
    const char first = text[0];
    if ((first >= '0' && first <= '9') || first == '-')
        return memchr(text, '.', (size_t)nbytes) || (nbytes >= 19 && text[4] == '-');
    return (nbytes == 4 && (first | 32) == 't') || (nbytes == 5 && (first | 32) == 'f');
}

/* Write the column and the sign of n texts, each after a prefix, among 2^bits columns, as
 * scikit-learn's FeatureHasher does. Return how many texts may be written in another way too; -1
 * without memory. The room after a prefix holds the longest text. */
EXPORT int64_t hash_texts(const char *data, const void *bounds, int64_t is_wide, int64_t n,
                          const char *prefix, int64_t prefix_nbytes, int64_t bits,
                          int32_t *columns, double *signs)
{
    int64_t longest = 0, respelled = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t nbytes = bound(bounds, is_wide, i + 1) - bound(bounds, is_wide, i);
        longest = nbytes > longest ? nbytes : longest;
    }
    unsigned char *room = prefix_nbytes ? malloc((size_t)(prefix_nbytes + longest)) : NULL;
    if (prefix_nbytes && !room)
        return -1;
    if (room)
        memcpy(room, prefix, (size_t)prefix_nbytes);
    for (int64_t i = 0; i < n; i++) {
        const char *text = data + bound(bounds, is_wide, i);
        const int64_t nbytes = bound(bounds, is_wide, i + 1) - bound(bounds, is_wide, i);
        respelled += may_be_respelled(text, nbytes);
        const unsigned char *key = (const unsigned char *)text;
        if (room) {
            memcpy(room + prefix_nbytes, text, (size_t)nbytes);
            key = room;
        }
        const uint32_t h = murmur(key, prefix_nbytes + nbytes);
        const uint32_t magnitude = h >> 31 ? 0 - h : h;
        columns[i] = (int32_t)(magnitude & ((UINT32_C(1) << bits) - 1));
        signs[i] = h >> 31 ? -1.0 : 1.0;
    }
    free(room);
    return respelled;
}

/* Sort the values of a row by their columns: shell sort, because rows have tens of values. */
static void sort_row(int32_t *columns, double *values, int64_t n)
{
    int64_t gap = 1;
    while (gap < n / 3)
        gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3)
        for (int64_t i = gap; i < n; i++) {
            const int32_t column = columns[i];
            const double value = values[i];
            int64_t j = i;
            for (; j >= gap && columns[j - gap] > column; j -= gap)
                columns[j] = columns[j - gap], values[j] = values[j - gap];
            columns[j] = column, values[j] = value;
        }
}

/* Sort each of n rows by columns and add up values of one column, in place; return how many values
 * remain. */
EXPORT int64_t tidy_rows(int64_t *bounds, int64_t n, int32_t *columns, double *values)
{
    int64_t out = 0, first = bounds[0];
    for (int64_t i = 0; i < n; i++) {
        const int64_t stop = bounds[i + 1], begin = out;
        sort_row(columns + first, values + first, stop - first);
        for (int64_t at = first; at < stop; at++) {
            if (out > begin && columns[out - 1] == columns[at])
                values[out - 1] += values[at];
            else
                columns[out] = columns[at], values[out++] = values[at];
        }
        bounds[i + 1] = out;
        first = stop;
    }
    return out;
}
