/* Rows of files, a piece at a time: reduced while the piece is in cache. */
#ifndef STREAMREG_PIECES_H
#define STREAMREG_PIECES_H

#include "rows.h"

/* Where the rows of a block lie in open files, and memory for a piece of them. */
struct files {
    int64_t n_parts;        /* 0: the rows have to be read in another way */
    const int64_t *files;   /* (n_parts,) descriptors */
    const int64_t *offsets; /* (n_parts,) of the first row of each part, in bytes */
    const int64_t *bounds;  /* (n_parts + 1,) the first row of each part, then the number of rows */
    int64_t first;          /* the row of the block to begin with */
    int64_t piece_nbytes;
    char *piece;
    int64_t piece_rows; /* output: rows of a piece */
};

/* Adds rows to sums. Before the first of them, `row` rows of the same add_pieces call were added:
 * their y and weights come first. */
typedef void (*add_rows_to)(const void *sums, const struct rows *rows, int64_t row);

/* Add the rows in memory, or, unless `from` is NULL, those of files in pieces of a multiple of `step`
 * rows. Returns how many rows were added: fewer if a file could not be read. */
int64_t add_pieces(const struct rows *x, struct files *from, int64_t step, const void *sums,
                   add_rows_to add);

#endif
