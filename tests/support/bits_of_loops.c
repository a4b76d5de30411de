/* Prints a checksum of what the loops compute from the same numbers on any processor.
 *
 * Structs are arrays of their fields, which are all of 64 bits: see kernels/compiled.py.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uintptr_t field;
#define AT(array) ((field)(array))

int64_t add_products(const field *, const field *, field *);
int64_t add_moments(const field *, const field *, field *);
void centre(const field *, const double *, double, double *, double *, double *);
void predict(const field *, const double *, const double *, int64_t, double *, double *);

enum { ROWS = 97, MOST_COLUMNS = 130, MOST_TARGETS = 3 };

static uint64_t state = 12345, checksum = 1469598103934665603u;

/* between -1 and 1: the linear congruential generator of Knuth's MMIX */
static double number(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(state >> 11) * 0x1p-52 - 1;
}

/* FNV-1a, a number at a time */
static void note(const double *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, values + i, sizeof bits);
        checksum = (checksum ^ bits) * 1099511628211u;
    }
}

static double X[ROWS * MOST_COLUMNS], y[ROWS * MOST_TARGETS], weight[ROWS];
static float X_single[ROWS * MOST_COLUMNS];
static uint16_t X_half[ROWS * MOST_COLUMNS];
static double V[2 * MOST_TARGETS * MOST_COLUMNS], bias[2 * MOST_TARGETS], scratch[1 << 17];
static double out[ROWS * MOST_COLUMNS], sums[11][2 * MOST_TARGETS * MOST_COLUMNS];

static void reduce(int type, int64_t d, int64_t k, int64_t m, const double *s)
{
    for (int i = 0; i < ROWS * d; i++) {
        X[i] = number() * 30 + 5;
        X_single[i] = (float)X[i];
        X_half[i] = (uint16_t)((int)(X[i] * 7) & 0x3fff);
    }
    for (int i = 0; i < m * d; i++)
        V[i] = number();
    for (int i = 0; i < m; i++)
        bias[i] = i < k ? 0 : number();
    const void *const stored[] = {X, X_single, X_half};
    field x[] = {AT(stored[type]), ROWS, (field)d, 0, 0, (field)type, 0, 0};
    memset(sums, 0, sizeof sums);
    const field products[] = {(field)m, (field)k, AT(V), AT(bias), AT(y), AT(s),
                              AT(sums[0]), AT(sums[1]), AT(sums[2]), AT(scratch)};
    add_products(x, products, NULL);
    field moments[14] = {(field)k, AT(y), AT(s), AT(X)};
    for (int i = 4; i < 12; i++)
        moments[i] = AT(sums[i - 1]);
    moments[12] = AT(scratch);
    add_moments(x, moments, NULL);
    note(sums[0], sizeof sums / sizeof(double));
    predict(x, V, bias, k, out, scratch);
    note(out, ROWS * k);
    x[4] = AT(X);
    memset(sums, 0, sizeof sums);
    centre(x, s, ROWS, sums[0], sums[1], out);
    note(out, ROWS * d);
    note(sums[0], d);
}

int main(void)
{
    static const int64_t widths[] = {1, 3, 8, 13, MOST_COLUMNS};
    for (int i = 0; i < ROWS * MOST_TARGETS; i++)
        y[i] = number();
    for (int i = 0; i < ROWS; i++)
        weight[i] = number() + 1.5;
    for (int type = 0; type < 3; type++)
        for (int at = 0; at < 5; at++)
            for (int64_t k = 1; k <= MOST_TARGETS; k += 2)
                for (int64_t m = k; m <= 2 * k; m += k) {
                    reduce(type, widths[at], k, m, NULL);
                    reduce(type, widths[at], k, m, weight);
                }
    printf("%016llx\n", (unsigned long long)checksum);
    return 0;
}
