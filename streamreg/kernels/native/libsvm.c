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

/* Add the digits at `at` to `*m`, eight at once up to `limit`, and their number to `*n`; return
 * their end. `*m` is right if they are not more than MOST_DIGITS.
 *
 * The bytes of eight digits are added in pairs, then in fours and eights: Lemire, "Number parsing at
 * a gigabyte per second", Software: Practice and Experience 51 (2021), section 10. */
INLINE const char *read_digits(const char *at, const char *limit, uint64_t *m, int *n)
{
    static const uint64_t powers[9] = {1,      10,      100,      1000,     10000,
                                       100000, 1000000, 10000000, 100000000};
    while (at <= limit) {
        uint64_t bytes;
        memcpy(&bytes, at, 8);
        bytes ^= UINT64_C(0x3030303030303030);
        /* the first byte above 9; a carry changes only bytes behind it */
        const uint64_t others =
            (bytes | (bytes + UINT64_C(0x0606060606060606))) & UINT64_C(0xf0f0f0f0f0f0f0f0);
        const int count = others ? __builtin_ctzll(others) >> 3 : 8;
        if (count == 0)
            return at;
        bytes <<= 8 * (8 - count);
        bytes = 10 * bytes + (bytes >> 8);
        bytes = ((bytes & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
                 ((bytes >> 16) & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001)) >>
                32;
        *m = *m * powers[count] + bytes;
        *n += count;
        at += count;
        if (count < 8)
            return at;
    }
    for (; is_digit(*at); at++, ++*n)
        *m = 10 * *m + (uint64_t)(*at - '0');
    return at;
}

/* Whether the digits from `at` to `end` are at most MOST_DIGITS, without the zeros before them, and a
 * point among them; `*m` is then their number. */
static int without_zeros(const char *at, const char *end, uint64_t *m)
{
    int n_digits = 0;
    for (*m = 0; at < end; at++) {
        if (*at == '.')
            continue;
        *m = 10 * *m + (uint64_t)(*at - '0');
        if (n_digits > 0 || *at != '0')
            n_digits++;
    }
    return n_digits <= MOST_DIGITS;
}

/* Read a number that ends before a space, a comment or the end of the line; return whether it was
 * read. Longer ones and other notations are left to Python. Eight bytes can be read up to `limit`. */
INLINE int read_number(const char **from, const char *limit, double *out)
{
    const char *at = *from;
    int is_negative = 0;
    /* a branch, because the processor then goes on without waiting for the character */
    if (__builtin_expect(!is_digit(*at), 0)) {
        is_negative = *at == '-';
        at += is_negative || *at == '+';
    }
    const char *first = at;
    uint64_t m = 0;
    int n_digits = 0, power = 0;
    for (; is_digit(*at); at++, n_digits++)
        m = 10 * m + (uint64_t)(*at - '0');
    if (*at == '.') {
        const char *point = ++at;
        at = read_digits(at, limit, &m, &n_digits);
        power = (int)(point - at);
    }
    if (n_digits == 0 || (n_digits > MOST_DIGITS && !without_zeros(first, at, &m)))
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
    const char *limit = to->text + to->nbytes - 8;
    if (!read_number(&at, limit, &to->targets[to->n_rows]))
        return NULL;
    int64_t last = -1, n = to->n_values;
    for (at = skip_spaces(at); *at != '\n' && *at != '#'; at = skip_spaces(at)) {
        uint64_t number = 0;
        int n_digits = 0;
        /* not eight digits at once: columns have few, and this takes 0.94 of the time */
        for (; is_digit(*at); at++, n_digits++)
            number = 10 * number + (uint64_t)(*at - '0');
        if (n_digits == 0 || n_digits >= MOST_DIGITS || *at != ':')
            return NULL;
        const int64_t column = (int64_t)number - to->first_column;
        if (column <= last || column >= INT32_MAX)
            return NULL;
        at++;
        double value;
        if (!read_number(&at, limit, &value))
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
