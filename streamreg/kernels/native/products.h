#ifndef STREAMREG_PRODUCTS_H
#define STREAMREG_PRODUCTS_H

#include "rows.h"

/* What is multiplied with the rows, and the sums; m columns, of which the first k have targets. */
struct products {
    int64_t m;
    int64_t k;
    const double *coefficients; /* (m, d) V */
    const double *bias;         /* (m,)   added to xV; zeros for the first k, whose b is in y */
    const double *y;            /* (n, k) y - b */
    const double *weight;       /* (n,)   s, or NULL: ones */
    double *rr;                 /* (k,)   Σ s r² */
    double *sums;               /* (m,)   Σ s u */
    double *products;           /* (m, d) Σ s u x */
    double *tile;               /* memory for `widened_rows` rows, unless rows are read directly */
};

void add_products(const struct rows *x, const struct products *p);

#endif
