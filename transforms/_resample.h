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

/* Grey levels that lie on a line, cut at both ends; see `straight.line_of`. A mask of 0 says that they don't. */
typedef struct {
    int32_t mask, flip, base, most, slope, start, bits;
} Straight;

typedef struct {
    Py_ssize_t pictures, rows, columns, channels, tables;
    const uint8_t *bytes;    /* (pictures, rows, columns, channels), or */
    const uint16_t *raw;     /* (pictures, rows, columns), or those of one picture, read by */
    int (*read)(void *files, Py_ssize_t picture, char *into); /* whether it was all there; with */
    void *files;
    const uint8_t *levels;   /* (tables, 65536), */
    const Straight *lines;   /* (tables,) and */
    const int32_t *which;    /* (pictures, channels) */
    Line across, down;
    uint8_t *out;            /* (pictures, rows, columns, channels) */
} Job;

static Py_ssize_t whole_lanes(Py_ssize_t count)
{
    return (count + LANES - 1) / LANES * LANES;
}

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

enum { EIGHT = 8, QUAD = 4, QUADS = 4, WIDEST = 64 };

/* 16 resized pixels of a row. Each eight of them are made of 16 bytes that lie together; `places` says where among
 * those the first pair of each pixel is, as two numbers of 16 bits, in quads in the order in which two registers hold
 * them: 0 and 2, 1 and 3.
 */
typedef struct {
    int32_t starts[2], pairs;
    uint8_t places[QUADS][QUAD][4];
} Block;

/* A line in blocks of pixels that are made of bytes which lie together, in the order that a kernel likes; no blocks
 * where these lie further apart, as the line becomes much shorter.
 */
typedef struct {
    Py_ssize_t blocks, pairs;
    void *block;
    int16_t *weights; /* of each block, pair by pair */
} Near;

#if defined(X86)
/* Room for a line in blocks of so many pixels, of which those that stand together are made of `widest` bytes. */
static Near room_near(const Line *line, Py_ssize_t together, Py_ssize_t widest, Py_ssize_t pixels, size_t block)
{
    Near near = {0};
    for (Py_ssize_t k = 0; k < line->target; k++) {
        const Py_ssize_t place = line->starts[k] - line->starts[k / together * together];
        if (place < 0 || place + line->width > widest)
            return near;
    }
    const Py_ssize_t blocks = (line->target + pixels - 1) / pixels, pairs = line->width / 2;
    near.block = calloc((size_t)blocks, block);
    near.weights = calloc((size_t)(blocks * pairs), 2 * (size_t)pixels * sizeof *near.weights);
    if (near.block && near.weights) {
        near.blocks = blocks;
        near.pairs = pairs;
    }
    return near;
}

/* Of AVX2; weights are (blocks, pairs, QUADS, QUAD, 2). */
static Near near_avx2(const Line *line)
{
    static const int order[QUADS] = {0, 2, 1, 3};
    const Near near = room_near(line, EIGHT, LANES, LANES, sizeof(Block));
    Block *const every = near.block;
    const Py_ssize_t pairs = near.pairs;
    for (Py_ssize_t k = 0; near.blocks && k < line->target; k++) {
        Block *block = every + k / LANES;
        const int quad = order[k % LANES / QUAD], own = line->counts[k] / 2;
        const int32_t start = line->starts[k / EIGHT * EIGHT];
        const uint8_t place = (uint8_t)(line->starts[k] - start);
        block->starts[k % LANES / EIGHT] = start;
        block->pairs = own > block->pairs ? own : block->pairs;
        memcpy(block->places[quad][k % QUAD], (uint8_t[4]){place, 128, (uint8_t)(place + 1), 128}, 4);
        for (Py_ssize_t pair = 0; pair < pairs; pair++)
            memcpy(near.weights + (((k / LANES * pairs + pair) * QUADS + quad) * QUAD + k % QUAD) * 2,
                   line->weights + k * line->width + 2 * pair, 2 * sizeof *near.weights);
    }
    return near;
}

/* One row of one channel; up to WIDEST - 1 bytes behind the result may be written too. */
AVX2 static void across_near_avx2(const Near *near, int bits, const uint8_t *row, uint8_t *resized)
{
    const __m128i shift = _mm_cvtsi32_si128(bits);
    const __m256i half = _mm256_set1_epi32((1 << bits) >> 1);
    const __m256i *weights = (const __m256i *)(const void *)near->weights;
    const Block *block = near->block, *last = block + near->blocks;
    for (const Py_ssize_t step = 2 * near->pairs; block < last; block++, resized += LANES, weights += step) {
        const __m128i low = _mm_loadu_si128((const __m128i *)(const void *)(row + block->starts[0]));
        const __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(row + block->starts[1]));
        const __m256i even = _mm256_loadu_si256((const __m256i *)(const void *)block->places[0]);
        const __m256i odd = _mm256_loadu_si256((const __m256i *)(const void *)block->places[2]);
        __m256i levels = _mm256_set_m128i(high, low), first = half, second = half;
        for (int k = 0; k < block->pairs; k++) {
            const __m256i one = _mm256_loadu_si256(weights + 2 * k), two = _mm256_loadu_si256(weights + 2 * k + 1);
            first = _mm256_add_epi32(first, _mm256_madd_epi16(_mm256_shuffle_epi8(levels, even), one));
            second = _mm256_add_epi32(second, _mm256_madd_epi16(_mm256_shuffle_epi8(levels, odd), two));
            levels = _mm256_srli_si256(levels, 2);
        }
        const __m256i words = _mm256_packs_epi32(_mm256_sra_epi32(first, shift), _mm256_sra_epi32(second, shift));
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)resized, bytes);
    }
}

/* The levels of the first numbers of a row, LANES at a time, computed instead of looked up; how many. */
AVX2 static Py_ssize_t on_line_avx2(const Straight *line, const uint16_t *raw, Py_ssize_t columns, uint8_t *to)
{
    const __m256i mask = _mm256_set1_epi16((int16_t)line->mask), flip = _mm256_set1_epi16((int16_t)line->flip);
    const __m256i base = _mm256_set1_epi16((int16_t)line->base), most = _mm256_set1_epi16((int16_t)line->most);
    const __m256i slope = _mm256_set1_epi32(line->slope), start = _mm256_set1_epi32(line->start);
    const __m128i bits = _mm_cvtsi32_si128(line->bits);
    Py_ssize_t column = 0;
    for (; column + LANES <= columns; column += LANES) {
        __m256i number = _mm256_loadu_si256((const __m256i *)(const void *)(raw + column));
        number = _mm256_xor_si256(_mm256_and_si256(number, mask), flip);
        number = _mm256_min_epu16(_mm256_subs_epu16(number, base), most);
        __m256i low = _mm256_unpacklo_epi16(number, _mm256_setzero_si256());
        __m256i high = _mm256_unpackhi_epi16(number, _mm256_setzero_si256());
        low = _mm256_sra_epi32(_mm256_add_epi32(_mm256_mullo_epi32(low, slope), start), bits);
        high = _mm256_sra_epi32(_mm256_add_epi32(_mm256_mullo_epi32(high, slope), start), bits);
        const __m256i words = _mm256_packs_epi32(low, high);
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)(to + column), bytes);
    }
    return column;
}

#endif

#if defined(AVX512)
#include "_resample512.h"
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
    /* Where the processor has what they need: how a line of one channel is taken without turning, and grey levels. */
    Near (*near)(const Line *);
    void (*across_near)(const Near *, int, const uint8_t *, uint8_t *);
    Py_ssize_t (*on_line)(const Straight *, const uint16_t *, Py_ssize_t, uint8_t *);
} Resizer;

RESIZERS(across, down, blend, )
#if defined(X86)
RESIZERS(across_sse2, down_sse2, blend_sse2, )
RESIZERS(across_avx2, down_avx2, blend_avx2, AVX2)
#endif

/* In the order of `kernels()`. */
static const Resizer RESIZERS_THERE[] = {
    {across, down, NULL, NULL, NULL},
#if defined(X86)
    {across_sse2, down_sse2, NULL, NULL, NULL},
    {across_avx2, down_avx2, near_avx2, across_near_avx2, on_line_avx2},
#endif
#if defined(AVX512)
    {across_avx2, down_avx512, near_avx512, across_near_avx512, on_line_avx512},
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
INLINE void fetch(const Job *job, const Resizer *resizer, Py_ssize_t picture, Py_ssize_t row, uint8_t *to)
{
    Py_ssize_t channels = job->channels, columns = job->columns;
    Py_ssize_t number = (job->read ? 0 : picture * job->rows) + row;
    if (job->bytes) {
        memcpy(to, job->bytes + number * columns * channels, (size_t)(columns * channels));
        return;
    }
    const uint16_t *raw = job->raw + number * columns;
    for (Py_ssize_t channel = 0; channel < channels; channel++) {
        const int32_t table = job->which[picture * channels + channel];
        const uint8_t *levels = job->levels + (Py_ssize_t)table * PATTERNS;
        Py_ssize_t column = 0;
        if (resizer->on_line && channels == 1 && job->lines[table].mask)
            column = resizer->on_line(&job->lines[table], raw, columns, to);
        uint8_t *mine = to + channel + column * channels;
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

/* Up to LANES rows that lie `stride` apart, resized along columns by turning them; as many are written to `half`. */
INLINE void across_lanes(const Job *job, const Resizer *resizer, const uint8_t *rows, Py_ssize_t stride,
                         uint8_t *packed, uint8_t *resized, uint8_t *half, Py_ssize_t half_stride)
{
    for (Py_ssize_t first = 0; first < stride; first += LANES)
        turn(rows + first, stride, packed + first * LANES, LANES);
    resizer->across(&job->across, job->channels, packed, resized);
    for (Py_ssize_t first = 0; first < half_stride; first += LANES)
        turn(resized + first * LANES, LANES, half + first, half_stride);
}

/* How many pictures of a job were done, up to the first that can't be read; -1 if there is no memory for one half done.
 */
static Py_ssize_t resample_all(const Job *job, const Resizer *resizer)
{
    const Line *across = &job->across, *down = &job->down;
    Py_ssize_t length = across->target * job->channels;
    Py_ssize_t stride = whole_lanes(across->source * job->channels);
    Py_ssize_t half_stride = (length + WIDEST - 1) / WIDEST * WIDEST; /* kernels write behind what they make */
    uint8_t *rows = calloc((size_t)stride, LANES), *packed = calloc((size_t)(stride + LANES), LANES);
    uint8_t *resized = calloc((size_t)half_stride, LANES), *out = job->out;
    uint8_t *half = calloc((size_t)(whole_lanes(job->rows) + 1), (size_t)half_stride);
    int enough = rows && packed && resized && half;
    Near near = resizer->near && across->width && job->channels == 1 ? resizer->near(across) : (Near){0};
    Py_ssize_t picture = 0;
    for (; enough && picture < job->pictures; picture++) {
        Py_ssize_t done = 0;
        if (job->read && !job->read(job->files, picture, (char *)(uintptr_t)job->raw))
            break;
        if (!across->width && !down->width) { /* nothing is resized */
            for (Py_ssize_t row = 0; row < job->rows; row++, out += length)
                fetch(job, resizer, picture, row, out);
            continue;
        }
        for (Py_ssize_t row = 0; row < job->rows; row++) {
            uint8_t *mine = half + row * half_stride, *turned = rows + row % LANES * stride;
            fetch(job, resizer, picture, row, near.blocks ? rows : across->width ? turned : mine);
            if (near.blocks)
                resizer->across_near(&near, across->bits, rows, mine);
            else if (across->width && (row + 1) % LANES && row + 1 < job->rows)
                continue;
            else if (across->width)
                across_lanes(job, resizer, rows, stride, packed, resized, half + row / LANES * LANES * half_stride,
                             half_stride);
            /* what these rows complete, while they lie in the cache */
            for (; done < down->target; done++, out += length) {
                Py_ssize_t needed = down->width ? down->starts[done] + down->counts[done] : done + 1;
                if (needed > row + 1 && row + 1 < job->rows)
                    break;
                if (down->width)
                    resizer->down(down, done, half, half_stride, out, length);
                else
                    memcpy(out, half + done * half_stride, (size_t)length);
            }
        }
    }
    free(near.block);
    free(near.weights);
    free(rows);
    free(packed);
    free(resized);
    free(half);
    return enough ? picture : -1;
}

#endif
