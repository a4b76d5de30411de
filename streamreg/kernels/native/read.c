/* Rows of files: read a piece at a time, and reduced while the piece is in cache. */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "moments.h"
#include "products.h"

/* Where the rows of a block lie in open files, and memory for a piece of them. */
struct stored {
    int64_t n_parts;
    const int64_t *files;   /* (n_parts,) descriptors */
    const int64_t *offsets; /* (n_parts,) of the first row of each part, in bytes */
    const int64_t *bounds;  /* (n_parts + 1,) the first row of each part, then the rows of all */
    int64_t first;          /* the row of the block to begin with */
    int64_t piece_nbytes;
    char *piece;
    int64_t done; /* set: rows that were reduced */
};

/* Read bytes of a file; whether all were there. */
static int read_bytes(int file, char *to, int64_t nbytes, int64_t offset)
{
    while (nbytes > 0) {
        const ssize_t done = pread(file, to, (size_t)nbytes, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return 0;
        to += done, offset += done, nbytes -= done;
    }
    return 1;
}

/* Read rows `start` to `stop` of the block into the piece; whether all could be read. */
static int read_piece(const struct stored *from, int64_t start, int64_t stop, int64_t row_nbytes)
{
    char *to = from->piece;
    for (int64_t part = 0; part < from->n_parts && start < stop; part++) {
        if (from->bounds[part + 1] <= start)
            continue;
        const int64_t end = from->bounds[part + 1] < stop ? from->bounds[part + 1] : stop;
        const int64_t nbytes = (end - start) * row_nbytes;
        const int64_t offset = from->offsets[part] + (start - from->bounds[part]) * row_nbytes;
        if (!read_bytes((int)from->files[part], to, nbytes, offset))
            return 0;
        to += nbytes, start = end;
    }
    return 1;
}

typedef void (*add_piece)(const struct rows *piece, const void *sums, int64_t row);

/* Reduce the rows, `step` at a time; whether all could be read. */
INLINE int reduce(const struct rows *x, struct stored *from, int64_t step, const void *sums,
                  add_piece add)
{
    const int64_t row_nbytes = x->d * size_of(x->type);
    const int64_t most = from->piece_nbytes / row_nbytes / step * step;
    for (from->done = 0; from->done < x->n;) {
        const int64_t rows = x->n - from->done < most ? x->n - from->done : most;
        const int64_t start = from->first + from->done;
        if (!read_piece(from, start, start + rows, row_nbytes))
            return 0;
        struct rows piece = *x;
        piece.values = from->piece;
        piece.n = rows;
        piece.in_cache = 1;
        add(&piece, sums, from->done);
        from->done += rows;
    }
    return 1;
}

static void add_some_products(const struct rows *piece, const void *sums, int64_t row)
{
    struct products some = *(const struct products *)sums;
    some.y += row * some.k;
    some.weight = some.weight ? some.weight + row : NULL;
    add_products(piece, &some);
}

static void add_some_moments(const struct rows *piece, const void *sums, int64_t row)
{
    struct moments some = *(const struct moments *)sums;
    some.y += row * some.k;
    some.weight = some.weight ? some.weight + row : NULL;
    add_moments(piece, &some);
}

int read_products(const struct rows *x, const struct products *sums, struct stored *from)
{
    const int64_t rows = from->piece_nbytes / (x->d * size_of(x->type));
    return reduce(x, from, rows < 4 ? 1 : 4, sums, add_some_products);
}

/* Whole tiles, so that the bits are those of rows in memory. */
int read_moments(const struct rows *x, const struct moments *sums, struct stored *from)
{
    return reduce(x, from, moments_rows(x->d), sums, add_some_moments);
}
