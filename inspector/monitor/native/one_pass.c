/* Sum, sum of squares, smallest and largest element in one pass over a value that is still in the cache.

   torch has no such reduction: its aminmax, sum and dot read three times, and each costs microseconds to call. Reached by
   ctypes (one_pass.py), so it needs no headers of Python's; where no C compiler is, the package installs without it. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 64   /* sums side by side: as many as fill the widest registers four times, to hide their latency */
#define BLOCK 8192 /* elements until the float sums are added up in double: 128 a lane, so that they stay exact to 1e-6 */
#define AHEAD 2048 /* elements: gradients are no longer in the cache when the optimizer steps, and processors look less far */

#if defined(__GNUC__)
#define FETCH(at) \
    for (int line = 0; line < LANES; line += 16) __builtin_prefetch((at) + line);
#else
#define FETCH(at)
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT
#endif

/* One machine code for all x86 processors of a wheel: the loader takes the widest that is there. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

enum { SUM, SQUARE, LOW, HIGH, SHIFT, COLUMNS };

/* Both sums are of x - x[0], so that a mean far larger than the spread does not hide it. Comparisons skip NaN and the sum
   keeps it, so a NaN is looked for only where the sum is none; then both extremes are NaN. */
WIDEST static void reduce(const float *x, int64_t n, float *out) {
    const float shift = x[0];
    double total = 0, square = 0;
    float low[LANES], high[LANES];
    int64_t i = 0;
    for (int j = 0; j < LANES; j++) low[j] = high[j] = shift;
    while (i + LANES <= n) {
        float sums[LANES] = {0}, squares[LANES] = {0};
        const int64_t stop = n - i > BLOCK ? i + BLOCK : n;
        for (; i + LANES <= stop; i += LANES) {
            FETCH(x + i + AHEAD)
            for (int j = 0; j < LANES; j++) {
                const float v = x[i + j], d = v - shift;
                sums[j] += d;
                squares[j] += d * d;
                low[j] = v < low[j] ? v : low[j];
                high[j] = v > high[j] ? v : high[j];
            }
        }
        for (int j = 0; j < LANES; j++) {
            total += sums[j];
            square += squares[j];
        }
    }
    for (; i < n; i++) {
        const float v = x[i], d = v - shift;
        total += d;
        square += (double)d * d;
        low[0] = v < low[0] ? v : low[0];
        high[0] = v > high[0] ? v : high[0];
    }
    for (int j = 1; j < LANES; j++) {
        low[0] = low[j] < low[0] ? low[j] : low[0];
        high[0] = high[j] > high[0] ? high[j] : high[0];
    }
    if (total != total)
        for (i = 0; i < n; i++)
            if (x[i] != x[i]) {
                low[0] = high[0] = x[i];
                break;
            }
    out[SUM] = (float)total;
    out[SQUARE] = (float)square;
    out[LOW] = low[0];
    out[HIGH] = high[0];
    out[SHIFT] = shift;
}

/* The sum of squares, in double where float would overflow or underflow. */
WIDEST static double square(const float *x, int64_t n) {
    double total = 0;
    int64_t i = 0;
    while (i + LANES <= n) {
        float squares[LANES] = {0};
        const int64_t stop = n - i > BLOCK ? i + BLOCK : n;
        for (; i + LANES <= stop; i += LANES) {
            FETCH(x + i + AHEAD)
            for (int j = 0; j < LANES; j++) squares[j] += x[i + j] * x[i + j];
        }
        for (int j = 0; j < LANES; j++) total += squares[j];
    }
    for (; i < n; i++) total += (double)x[i] * x[i];
    if (total > 1e-30 && total < 1e30) return total;
    total = 0;
    for (i = 0; i < n; i++) total += (double)x[i] * x[i];
    return total;
}

/* Elements 0, step, 2 step ... of x. */
EXPORT void inspector_sample(const float *x, int64_t step, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = x[i * step];
}

/* counts[r, b]: how many of the first taken[r] numbers of line lines[r] have a magnitude in bin b: zero, powers of two by
   their exponent from -offset (and all that is smaller) on, and, last, what is no number. */
EXPORT void inspector_bins(const float *x, const int64_t *lines, int64_t rows, int64_t width, const int64_t *taken,
                           int64_t offset, int64_t bins, int64_t *counts) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < taken[r]; i++) {
            uint32_t bits;
            memcpy(&bits, x + lines[r] * width + i, sizeof bits);
            const int64_t exponent = (bits >> 23) & 0xFF, power = exponent - 127 + offset;
            int64_t bin = power < 1 ? 1 : power > bins - 2 ? bins - 2 : power;
            if (exponent == 0xFF) bin = bins - 1;
            if ((bits & 0x7FFFFFFF) == 0) bin = 0;
            counts[r * bins + bin]++;
        }
}

enum { N, MEAN, RMS, STD, MIN, MAX, ABSMAX, IS_NAN, IS_INF, STATISTICS };

/* Lines of sums become statistics: parts first[r] to first[r + 1] are those of row r, n[p] elements at line slots[p], and are
   merged by the parallel-variance formula. Answers whether all is finite and within what float32 squares can hold. */
EXPORT int inspector_merge(const float *lines, const int64_t *slots, const double *n, const int64_t *first, int64_t rows,
                           float *out) {
    int plain = 1;
    for (int64_t r = 0; r < rows; r++) {
        double total = 0, mean = 0, spread = 0, low = INFINITY, high = -INFINITY;
        for (int64_t p = first[r]; p < first[r + 1]; p++) {
            const float *line = lines + slots[p] * COLUMNS;
            const double part = line[SUM] / n[p], own = line[SHIFT] + part, far = own - mean;
            total += n[p];
            mean += far * n[p] / total;
            spread += n[p] * (line[SQUARE] / n[p] - part * part) + far * far * n[p] * (total - n[p]) / total;
            low = line[LOW] < low ? line[LOW] : low;
            high = line[HIGH] > high ? line[HIGH] : high;
            plain = plain && isfinite(line[LOW]) && isfinite(line[HIGH]);
        }
        spread = spread > 0 && low < high ? spread / total : 0;
        const double rms = sqrt(spread + mean * mean), most = -low > high ? -low : high;
        const double statistics[STATISTICS] = {total, mean, rms, sqrt(spread), low, high, most, 0, 0};
        for (int k = 0; k < STATISTICS; k++) out[r * STATISTICS + k] = (float)statistics[k];
        plain = plain && isfinite(rms) && (rms > 1e-17 || most == 0);
    }
    return plain;
}

/* values[k]: sizes[k] > 0 numbers, reduced into the k-th line of out. */
EXPORT void inspector_reduce(const float *const *values, const int64_t *sizes, int64_t count, float *out) {
    for (int64_t k = 0; k < count; k++) reduce(values[k], sizes[k], out + k * COLUMNS);
}

EXPORT void inspector_reduce_one(const float *value, int64_t size, float *out) { reduce(value, size, out); }

EXPORT double inspector_square_sum(const float *const *values, const int64_t *sizes, int64_t count) {
    double total = 0;
    for (int64_t k = 0; k < count; k++) total += square(values[k], sizes[k]);
    return total;
}
