/* Window and resize: the loops of render.py and resize.py. */

#ifndef MEDMLLM_RESAMPLE_H
#define MEDMLLM_RESAMPLE_H

#include "_processor.h"

/* Entries of a table of grey levels: one for each pattern of 16 bits. */
enum { PATTERNS = 65536 };

/* Which pixels of a line make each pixel of the resized line; see `resize.Taps`. Width and counts are even; the last
 * tap may lie one pixel beyond the line, and weighs nothing there.
 */
typedef struct {
    Py_ssize_t source, target, width;
    int bits;
    const int32_t *starts, *counts;
    const int16_t *weights;
} Line;

typedef struct {
    Py_ssize_t pictures, rows, columns, channels, tables;
    const uint8_t *bytes;    /* (pictures, rows, columns, channels), or */
    const uint16_t *raw;     /* (pictures, rows, columns) with */
    const uint8_t *levels;   /* (tables, 65536) and */
    const int32_t *which;    /* (pictures, channels) */
    Line across, down;
    uint8_t *out;            /* (pictures, rows, columns, channels) */
} Job;

/* Each of these makes 16 bytes from `width` times 16 bytes that lie `stride` apart: the weighted sum of whole
 * numbers, rounded, cut to 0..255. How it is added up makes no difference.
 */

INLINE void blend(const uint8_t *from, Py_ssize_t stride, const int16_t *weights, Py_ssize_t width, int bits,
                  uint8_t *to)
{
    int32_t sums[LANES];
    for (int lane = 0; lane < LANES; lane++)
        sums[lane] = (1 << bits) >> 1;
    for (Py_ssize_t k = 0; k < width; k++, from += stride)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += weights[k] * from[lane];
    for (int lane = 0; lane < LANES; lane++) {
        int32_t level = sums[lane] >> bits;
        to[lane] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
    }
}

#if defined(X86)
INLINE void blend_sse2(const uint8_t *from, Py_ssize_t stride, const int16_t *weights, Py_ssize_t width, int bits,
                       uint8_t *to)
{
    const __m128i zero = _mm_setzero_si128(), shift = _mm_cvtsi32_si128(bits);
    __m128i sums[4];
    for (int k = 0; k < 4; k++)
        sums[k] = _mm_set1_epi32((1 << bits) >> 1);
    for (Py_ssize_t k = 0; k < width; k += 2, from += 2 * stride) {
        int32_t pair;
        memcpy(&pair, weights + k, sizeof pair);
        const __m128i both = _mm_set1_epi32(pair), one = _mm_loadu_si128((const __m128i *)from);
        const __m128i next = _mm_loadu_si128((const __m128i *)(from + stride));
        const __m128i low = _mm_unpacklo_epi8(one, next), high = _mm_unpackhi_epi8(one, next);
        sums[0] = _mm_add_epi32(sums[0], _mm_madd_epi16(_mm_unpacklo_epi8(low, zero), both));
        sums[1] = _mm_add_epi32(sums[1], _mm_madd_epi16(_mm_unpackhi_epi8(low, zero), both));
        sums[2] = _mm_add_epi32(sums[2], _mm_madd_epi16(_mm_unpacklo_epi8(high, zero), both));
        sums[3] = _mm_add_epi32(sums[3], _mm_madd_epi16(_mm_unpackhi_epi8(high, zero), both));
    }
    for (int k = 0; k < 4; k++)
        sums[k] = _mm_sra_epi32(sums[k], shift);
    const __m128i low = _mm_packs_epi32(sums[0], sums[1]), high = _mm_packs_epi32(sums[2], sums[3]);
    _mm_storeu_si128((__m128i *)to, _mm_packus_epi16(low, high));
}

AVX2 INLINE void blend_avx2(const uint8_t *from, Py_ssize_t stride, const int16_t *weights, Py_ssize_t width,
                            int bits, uint8_t *to)
{
    const __m128i shift = _mm_cvtsi32_si128(bits);
    __m256i first = _mm256_set1_epi32((1 << bits) >> 1), second = first;
    for (Py_ssize_t k = 0; k < width; k += 2, from += 2 * stride) {
        int32_t pair;
        memcpy(&pair, weights + k, sizeof pair);
        const __m256i both = _mm256_set1_epi32(pair);
        const __m128i one = _mm_loadu_si128((const __m128i *)from);
        const __m128i next = _mm_loadu_si128((const __m128i *)(from + stride));
        const __m256i low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(one, next));
        const __m256i high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(one, next));
        first = _mm256_add_epi32(first, _mm256_madd_epi16(low, both));
        second = _mm256_add_epi32(second, _mm256_madd_epi16(high, both));
    }
    const __m256i words = _mm256_packs_epi32(_mm256_sra_epi32(first, shift), _mm256_sra_epi32(second, shift));
    const __m256i sorted = _mm256_permute4x64_epi64(words, 0xD8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(sorted), _mm256_extracti128_si256(sorted, 1));
    _mm_storeu_si128((__m128i *)to, bytes);
}
#endif

/* Along rows: 16 lanes are 16 rows, `packed` and `resized` are (columns, channels, lanes). Along columns: the
 * lanes are 16 bytes of a row, `rows` is (rows, stride), padded to whole lanes, `resized` one row of `length` bytes.
 * What is the same for all steps is copied first: bytes that are written might be anything, for all C knows.
 */
#define RESIZERS(ACROSS, DOWN, BLEND, TARGET)                                                                      \
    TARGET static void ACROSS(const Line *line, Py_ssize_t channels, const uint8_t *packed, uint8_t *resized)      \
    {                                                                                                              \
        const Line own = *line;                                                                                    \
        for (Py_ssize_t column = 0; column < own.target; column++) {                                               \
            const uint8_t *from = packed + own.starts[column] * channels * LANES;                                  \
            for (Py_ssize_t channel = 0; channel < channels; channel++, from += LANES, resized += LANES)           \
                BLEND(from, channels * LANES, own.weights + column * own.width, own.counts[column], own.bits,      \
                      resized);                                                                                    \
        }                                                                                                          \
    }                                                                                                              \
    TARGET static void DOWN(const Line *line, Py_ssize_t row, const uint8_t *rows, Py_ssize_t stride,              \
                            uint8_t *resized, Py_ssize_t length)                                                   \
    {                                                                                                              \
        const uint8_t *from = rows + line->starts[row] * stride;                                                   \
        const int16_t *weights = line->weights + row * line->width;                                                \
        const Py_ssize_t count = line->counts[row], whole = length - length % LANES;                               \
        const int bits = line->bits;                                                                               \
        uint8_t last[LANES];                                                                                       \
        for (Py_ssize_t first = 0; first < whole; first += LANES)                                                  \
            BLEND(from + first, stride, weights, count, bits, resized + first);                                    \
        if (whole < length) {                                                                                      \
            BLEND(from + whole, stride, weights, count, bits, last);                                               \
            memcpy(resized + whole, last, (size_t)(length - whole));                                               \
        }                                                                                                          \
    }

typedef struct {
    void (*across)(const Line *, Py_ssize_t, const uint8_t *, uint8_t *);
    void (*down)(const Line *, Py_ssize_t, const uint8_t *, Py_ssize_t, uint8_t *, Py_ssize_t);
} Resizer;

RESIZERS(across, down, blend, )
#if defined(X86)
RESIZERS(across_sse2, down_sse2, blend_sse2, )
RESIZERS(across_avx2, down_avx2, blend_avx2, AVX2)
#endif

/* In the order of `kernels()`. */
static const Resizer RESIZERS_THERE[] = {
    {across, down},
#if defined(X86)
    {across_sse2, down_sse2},
    {across_avx2, down_avx2},
#endif
};

/* 16 x 16 bytes turned about their diagonal; rows lie `stride` apart. */
INLINE void turn(const uint8_t *from, Py_ssize_t from_stride, uint8_t *to, Py_ssize_t to_stride)
{
#if defined(X86)
    __m128i rows[LANES], mixed[LANES];
    for (int k = 0; k < LANES; k++)
        rows[k] = _mm_loadu_si128((const __m128i *)(from + k * from_stride));
    for (int round = 0; round < 4; round++) { /* each mixes row k with row k + 8, byte by byte */
        for (int k = 0; k < LANES / 2; k++) {
            mixed[2 * k] = _mm_unpacklo_epi8(rows[k], rows[k + 8]);
            mixed[2 * k + 1] = _mm_unpackhi_epi8(rows[k], rows[k + 8]);
        }
        memcpy(rows, mixed, sizeof rows);
    }
    for (int k = 0; k < LANES; k++)
        _mm_storeu_si128((__m128i *)(to + k * to_stride), rows[k]);
#else
    for (int row = 0; row < LANES; row++)
        for (int column = 0; column < LANES; column++)
            to[column * to_stride + row] = from[row * from_stride + column];
#endif
}

/* One row of a picture as grey levels or colours (columns, channels). */
INLINE void fetch(const Job *job, Py_ssize_t picture, Py_ssize_t row, uint8_t *to)
{
    Py_ssize_t channels = job->channels, columns = job->columns, number = picture * job->rows + row;
    if (job->bytes) {
        memcpy(to, job->bytes + number * columns * channels, (size_t)(columns * channels));
        return;
    }
    const uint16_t *raw = job->raw + number * columns;
    for (Py_ssize_t channel = 0; channel < channels; channel++) {
        const uint8_t *levels = job->levels + (Py_ssize_t)job->which[picture * channels + channel] * PATTERNS;
        uint8_t *mine = to + channel;
        Py_ssize_t column = 0;
        for (; column + 4 <= columns; column += 4, mine += 4 * channels) {
            uint8_t one = levels[raw[column]], two = levels[raw[column + 1]];
            uint8_t three = levels[raw[column + 2]], four = levels[raw[column + 3]];
            mine[0] = one;
            mine[channels] = two;
            mine[2 * channels] = three;
            mine[3 * channels] = four;
        }
        for (; column < columns; column++, mine += channels)
            *mine = levels[raw[column]];
    }
}

static Py_ssize_t whole_lanes(Py_ssize_t count)
{
    return (count + LANES - 1) / LANES * LANES;
}

/* Everything for all pictures of a job; false if there is no memory for one picture half done. */
static int resample_all(const Job *job, const Resizer *resizer)
{
    const Line *across = &job->across, *down = &job->down;
    Py_ssize_t length = across->target * job->channels;
    Py_ssize_t stride = whole_lanes(across->source * job->channels), half_stride = whole_lanes(length);
    uint8_t *rows = calloc((size_t)stride, LANES), *packed = calloc((size_t)(stride + LANES), LANES);
    uint8_t *resized = calloc((size_t)half_stride, LANES);
    uint8_t *half = calloc((size_t)(whole_lanes(job->rows) + 1), (size_t)half_stride);
    int enough = rows && packed && resized && half;
    for (Py_ssize_t picture = 0; enough && picture < job->pictures; picture++) {
        for (Py_ssize_t row = 0; row < job->rows; row++) {
            uint8_t *to = half + row * half_stride;
            fetch(job, picture, row, across->width ? rows + row % LANES * stride : to);
            if (!across->width || ((row + 1) % LANES && row + 1 < job->rows))
                continue;
            for (Py_ssize_t first = 0; first < stride; first += LANES)
                turn(rows + first, stride, packed + first * LANES, LANES);
            resizer->across(across, job->channels, packed, resized);
            to = half + row / LANES * LANES * half_stride;
            for (Py_ssize_t first = 0; first < half_stride; first += LANES)
                turn(resized + first * LANES, LANES, to + first, half_stride);
        }
        for (Py_ssize_t row = 0; row < down->target; row++) {
            uint8_t *to = job->out + (picture * down->target + row) * length;
            if (down->width)
                resizer->down(down, row, half, half_stride, to, length);
            else
                memcpy(to, half + row * half_stride, (size_t)length);
        }
    }
    free(rows);
    free(packed);
    free(resized);
    free(half);
    return enough;
}

#endif
