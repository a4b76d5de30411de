/* Lines of libsvm text, "target column:value column:value # comment", as sparse rows. */
#include "lanes.h"

/* Whole lines, each ended by a line feed, and the rows that are made of them. The arrays hold
 * nbytes / 2 + 2 rows and nbytes / 4 + 1 values, which is as many as there can be. */
struct libsvm {
    const char *text;
    int64_t nbytes;
    int64_t first_column; /* the number of the first column: 0 or 1 */
    double *targets;
    double *values;
    int32_t *indices; /* from 0 */
    int64_t *bounds;  /* bounds[0] is 0 */
    int64_t n_rows, n_values;
    int64_t consumed; /* bytes of the lines that were read */
    int64_t lines;    /* all of them, also those without a row */
    int64_t is_float32; /* whether float32 holds all values so far */
    int64_t least, most; /* columns, from 0 */
};

EXPORT int64_t libsvm_nbytes(void)
{
    return sizeof(struct libsvm);
}

#define MOST_DIGITS 19 /* they fit in 64 bits */
#define MOST_POWER 22  /* float64 holds 10^22 */
#define MOST_DIVISOR 27 /* 5^27 fits in 64 bits */

static const double tens[MOST_POWER + 1] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

INLINE int is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

INLINE int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

INLINE int is_end(char c)
{
    return is_space(c) || c == '\n' || c == '#';
}

/* m / 10^k rounded to the nearest float64, for m > 0 and k up to 27: an integer quotient of at least
 * 62 bits by 5^k, whose last bit is set if there is a remainder. */
static double quotient(uint64_t m, int k)
{
    uint64_t divisor = 1;
    for (int i = 0; i < k; i++)
        divisor *= 5;
    const int of_m = __builtin_clzll(m), of_divisor = __builtin_clzll(divisor);
    const unsigned __int128 n = (unsigned __int128)(m << of_m) << 63;
    divisor <<= of_divisor;
    const uint64_t q = (uint64_t)(n / divisor) | (n % divisor != 0);
    const uint64_t bits = (uint64_t)(1023 - 63 - of_m + of_divisor - k) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return (double)q * power;
}

/* Read a number that ends before a space, a comment or the end of the line; return whether it was
 * read. Longer ones and other notations are left to Python. */
static int read_number(const char **from, double *out)
{
    const char *at = *from;
    const int is_negative = *at == '-';
    at += is_negative || *at == '+';
    uint64_t m = 0;
    int n_digits = 0, power = 0, is_any = 0;
    for (; is_digit(*at); at++, is_any = 1)
        m = 10 * m + (uint64_t)(*at - '0'), n_digits += n_digits || *at != '0';
    if (*at == '.')
        for (at++; is_digit(*at); at++, is_any = 1)
            m = 10 * m + (uint64_t)(*at - '0'), n_digits += n_digits || *at != '0', power--;
    if (!is_any || n_digits > MOST_DIGITS)
        return 0;
    if (*at == 'e' || *at == 'E') {
        at++;
        const int falls = *at == '-';
        at += falls || *at == '+';
        if (!is_digit(*at))
            return 0;
        int exponent = 0;
        for (; is_digit(*at) && exponent < 1000; at++)
            exponent = 10 * exponent + (*at - '0');
        power += falls ? -exponent : exponent;
    }
    if (!is_end(*at))
        return 0;
    double number;
    if (m == 0 || power == 0)
        number = (double)m;
    else if (m <= UINT64_C(1) << 53 && power > 0 && power <= MOST_POWER)
        number = (double)m * tens[power];
    else if (m <= UINT64_C(1) << 53 && power < 0 && power >= -MOST_POWER)
        number = (double)m / tens[-power];
    else if (power < 0 && power >= -MOST_DIVISOR)
        number = quotient(m, -power);
    else
        return 0;
    *out = is_negative ? -number : number;
    *from = at;
    return 1;
}

INLINE const char *skip_spaces(const char *at)
{
    while (is_space(*at))
        at++;
    return at;
}

/* Read the line at `at`, which has a row; return its end, or NULL if it is not understood. */
static const char *read_row(struct libsvm *to, const char *at)
{
    if (!read_number(&at, &to->targets[to->n_rows]))
        return NULL;
    int64_t last = -1, n = to->n_values;
    for (at = skip_spaces(at); *at != '\n' && *at != '#'; at = skip_spaces(at)) {
        int64_t column = 0;
        const char *digits = at;
        for (; is_digit(*at) && column < INT32_MAX; at++)
            column = 10 * column + (*at - '0');
        column -= to->first_column;
        if (at == digits || *at != ':' || column <= last || column >= INT32_MAX)
            return NULL;
        at++;
        double value;
        if (!read_number(&at, &value))
            return NULL;
        to->values[n] = value;
        to->indices[n++] = (int32_t)column;
        to->is_float32 &= (double)(float)value == value;
        if (last < 0 && column < to->least)
            to->least = column;
        last = column;
    }
    if (last > to->most)
        to->most = last;
    to->n_values = n;
    to->bounds[++to->n_rows] = n;
    return *at == '\n' ? at : memchr(at, '\n', (size_t)(to->text + to->nbytes - at));
}

/* Add rows until the text ends; return whether it did. Else a line was not understood, and
 * `consumed` is where it begins. */
EXPORT int64_t read_libsvm(struct libsvm *to)
{
    const char *at = to->text + to->consumed, *end = to->text + to->nbytes;
    while (at < end) {
        const char *first = skip_spaces(at);
        if (*first == '#')
            at = memchr(first, '\n', (size_t)(end - first));
        else if (*first == '\n')
            at = first;
        else
            at = read_row(to, first);
        if (!at)
            return 0;
        at++;
        to->lines++;
        to->consumed = at - to->text;
    }
    return 1;
}
