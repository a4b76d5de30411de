#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "pieces.h"

/* Read bytes of a file; return whether all could be read. */
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

/* Read rows `start` to `stop` of the block into the piece; return whether all could be read. */
static int read_piece(const struct files *from, int64_t start, int64_t stop, int64_t row_nbytes)
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
    return start == stop;
}

int64_t add_pieces(const struct rows *x, struct files *from, int64_t step, const void *sums,
                   add_rows_to add)
{
    if (!from) {
        add(sums, x, 0);
        return x->n;
    }
    const int64_t row_nbytes = x->d * size_of(x->type);
    const int64_t most = from->piece_nbytes / row_nbytes / step * step;
    /* if the piece holds less than a step, no rows are added: the caller reads a step at a time */
    from->piece_rows = most ? most : step;
    int64_t done = 0;
    while (most && done < x->n) {
        const int64_t rows = x->n - done < most ? x->n - done : most;
        const int64_t start = from->first + done;
        if (!read_piece(from, start, start + rows, row_nbytes))
            break;
        struct rows piece = *x;
        piece.values = from->piece;
        piece.n = rows;
        piece.in_cache = 1;
        add(sums, &piece, done);
        done += rows;
    }
    return done;
}

/* For Python, which builds the structs, and compares their sizes. */
EXPORT int64_t rows_nbytes(void)
{
    return sizeof(struct rows);
}

EXPORT int64_t files_nbytes(void)
{
    return sizeof(struct files);
}
