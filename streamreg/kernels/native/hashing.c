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

/* Write the column and the sign of a hash, among 2^bits columns, as scikit-learn's FeatureHasher. */
INLINE void place(uint32_t h, int64_t bits, int32_t *column, double *sign)
{
    const uint32_t magnitude = h >> 31 ? 0 - h : h;
    *column = (int32_t)(magnitude & ((UINT32_C(1) << bits) - 1));
    *sign = h >> 31 ? -1.0 : 1.0;
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

/* Write the column and the sign of n texts, each after a prefix. Return how many texts may be
 * written in another way too; -1 without memory. The room after a prefix holds the longest text. */
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
        place(murmur(key, prefix_nbytes + nbytes), bits, &columns[i], &signs[i]);
    }
    free(room);
    return respelled;
}

/* Letters and digits, and all bytes of characters beyond ASCII. */
INLINE int is_of_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c >= 128;
}

/* Write the columns and signs of the tokens of n texts, and where those of each text begin. Tokens
 * are words of at least two letters, made lower case in place; or, if not `by_words`, what NUL
 * separates. Return how many tokens there are. */
EXPORT int64_t hash_tokens(unsigned char *data, const int64_t *bounds, int64_t n, int64_t by_words,
                           int64_t bits, int64_t *token_bounds, int32_t *columns, double *signs)
{
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        token_bounds[i] = m;
        int64_t at = bounds[i];
        const int64_t stop = bounds[i + 1];
        while (at < stop) {
            const int64_t first = at;
            if (by_words)
                for (; at < stop && is_of_word(data[at]); at++)
                    data[at] |= data[at] >= 'A' && data[at] <= 'Z' ? 32 : 0;
            else
                while (at < stop && data[at])
                    at++;
            if (at - first > by_words) {
                place(murmur(data + first, at - first), bits, &columns[m], &signs[m]);
                m++;
            }
            at++;
        }
    }
    token_bounds[n] = m;
    return m;
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
