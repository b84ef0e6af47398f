/* Pictures to patches: the loops of patches.py. */

#ifndef MEDMLLM_CUT_H
#define MEDMLLM_CUT_H

#include "_processor.h"

enum { LARGEST_PATCH = 32, MOST_MERGE = 64, MOST_TEMPORAL = 4 };

/* Bytes that the caches hold together. */
enum { LINE = 64 };

typedef struct {
    Py_ssize_t rows, columns, channels, patch, merge, temporal;
    const uint8_t *plane;
    const float *scale; /* mean, then standard deviation of each of three channels; NULL for levels as they are */
    uint8_t *out;
} Cut;

/* The levels of one patch, channel by channel; the channels begin `step` apart. */
INLINE void gather(const Cut *cut, const uint8_t *from, Py_ssize_t patch, Py_ssize_t channels, uint8_t *to,
                   Py_ssize_t step)
{
    for (Py_ssize_t line = 0; line < patch; line++, from += cut->columns * channels, to += patch)
        if (channels == 1)
            memcpy(to, from, (size_t)patch);
        else
            for (Py_ssize_t k = 0; k < patch; k++)
                for (Py_ssize_t channel = 0; channel < channels; channel++)
                    to[channel * step + k] = from[k * channels + channel];
}

#if defined(X86)
enum { PARTS = 3, SMALLEST_TURNED = 6, LARGEST_TURNED = 16 };

/* A line of three channels is 16 to 48 bytes, read in three parts that overlap. Where in each part the levels of each
 * channel are, in their order; -1 where another part has them.
 */
typedef struct {
    Py_ssize_t starts[PARTS];
    int8_t places[3][PARTS][16];
} Shuffle;

static Shuffle shuffle_for(Py_ssize_t patch)
{
    Shuffle made = {.starts = {0, (3 * patch - 16) / 2, 3 * patch - 16}};
    memset(made.places, -1, sizeof made.places);
    for (Py_ssize_t byte = 0; byte < 3 * patch; byte++) {
        const int part = byte < 16 ? 0 : byte >= made.starts[2] ? 2 : 1;
        made.places[byte % 3][part][byte / 3] = (int8_t)(byte - made.starts[part]);
    }
    return made;
}

/* As `gather` for three channels. Up to 10 bytes behind a line of the result are written, before what belongs
 * there.
 */
AVX2 static void gather_avx2(const Cut *cut, const uint8_t *from, Py_ssize_t patch, uint8_t *to, Py_ssize_t step,
                             const Shuffle *shuffle)
{
    for (int channel = 0; channel < 3; channel++) {
        const uint8_t *line = from;
        uint8_t *mine = to + channel * step;
        __m128i masks[PARTS];
        memcpy(masks, shuffle->places[channel], sizeof masks);
        for (Py_ssize_t row = 0; row < patch; row++, line += cut->columns * 3, mine += patch) {
            __m128i levels = _mm_setzero_si128();
            for (int part = 0; part < PARTS; part++) {
                const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(line + shuffle->starts[part]));
                levels = _mm_or_si128(levels, _mm_shuffle_epi8(bytes, masks[part]));
            }
            _mm_storeu_si128((__m128i *)(void *)mine, levels);
        }
    }
}
#endif

#if defined(X86) && defined(__x86_64__)
/* `count` times LANES bytes from `at` on. All numbers are constants, so the places that they are read from are, too. */
INLINE void put_lanes(uint8_t *to, const uint8_t *from, Py_ssize_t at, Py_ssize_t count, Py_ssize_t period)
{
    UNROLLED
    for (Py_ssize_t k = 0; k < count; k++, to += LANES) {
        _mm_stream_si128((__m128i *)(void *)to, _mm_loadu_si128((const __m128i *)(const void *)(from + at)));
        at += at + LANES < period ? LANES : LANES - period;
    }
}
#endif

/* Bytes that repeat after `period`, copied past the caches, which patches would only flush: a set of them is larger,
 * and is not read here again. Where they repeat within `bytes`, the first LANES must lie once more behind the period.
 */
INLINE void put(uint8_t *to, const uint8_t *from, Py_ssize_t bytes, Py_ssize_t period)
{
#if defined(X86) && defined(__x86_64__)
    if (__builtin_constant_p(bytes) && __builtin_constant_p(period) && ((uintptr_t)to | (uintptr_t)bytes) % 8 == 0) {
        const Py_ssize_t before = (uintptr_t)to % LANES ? 8 : 0;
        long long eight;
        if (before) {
            memcpy(&eight, from, 8);
            _mm_stream_si64((long long *)(void *)to, eight);
            put_lanes(to + 8, from, 8, (bytes - 8) / LANES, period);
        } else {
            put_lanes(to, from, 0, bytes / LANES, period);
        }
        if ((bytes - before) % LANES) {
            memcpy(&eight, from + (bytes - 8) % period, 8);
            _mm_stream_si64((long long *)(void *)(to + bytes - 8), eight);
        }
        return;
    }
#endif
    for (; bytes > period; bytes -= period, to += period)
        memcpy(to, from, (size_t)period);
    memcpy(to, from, (size_t)bytes);
}

/* Asks for the rows of `next`, a picture's row of tokens, before they are needed: patch by patch, the processor doesn't
 * see that they follow each other.
 */
INLINE void ask_for_rows(const Cut *cut, Py_ssize_t next, Py_ssize_t patch, Py_ssize_t channels)
{
#if defined(X86)
    const Py_ssize_t high = cut->merge * patch, bytes = high * cut->columns * channels;
    if ((next + 1) * high > cut->rows)
        return;
    for (Py_ssize_t byte = 0; byte < bytes; byte += LINE)
        _mm_prefetch((const char *)cut->plane + next * bytes + byte, _MM_HINT_T0);
#else
    (void)cut, (void)next, (void)patch, (void)channels;
#endif
}

/* The patches of a picture. That patch, channels and temporal are constants where it counts, lets the compiler
 * unroll the small copies.
 */
INLINE void cut_patches(const Cut *cut, Py_ssize_t patch, Py_ssize_t channels, Py_ssize_t temporal, int avx2)
{
    Py_ssize_t merge = cut->merge, area = patch * patch, step = temporal * area;
    Py_ssize_t across = cut->columns / patch / merge, patches = cut->rows / patch * (cut->columns / patch);
    uint8_t levels[3 * LARGEST_PATCH * LARGEST_PATCH * MOST_TEMPORAL + LANES], *to = cut->out;
    float values[LARGEST_PATCH * LARGEST_PATCH], scaled[LARGEST_PATCH * LARGEST_PATCH];
#if defined(X86)
    const int turned = avx2 && channels == 3 && patch >= SMALLEST_TURNED && patch <= LARGEST_TURNED;
    const Shuffle shuffle = turned ? shuffle_for(patch) : (Shuffle){0};
#else
    (void)avx2;
#endif
    for (Py_ssize_t number = 0; number < patches; number++) {
        Py_ssize_t token = number / (merge * merge), inside = number % (merge * merge);
        Py_ssize_t row = (token / across * merge + inside / merge) * patch;
        Py_ssize_t column = (token % across * merge + inside % merge) * patch;
        const uint8_t *from = cut->plane + (row * cut->columns + column) * channels;
        if (!column && !inside)
            ask_for_rows(cut, token / across + 1, patch, channels);
#if defined(X86)
        if (turned)
            gather_avx2(cut, from, patch, levels, step, &shuffle);
        else
#endif
            gather(cut, from, patch, channels, levels, step);
        if (!cut->scale) {
            const int same = channels == 1 && area >= LANES;
            for (Py_ssize_t k = 1; !same && k < 3 * temporal; k++)
                if (channels == 1 || k % temporal)
                    memcpy(levels + k * area, channels == 1 ? levels : levels + k / temporal * step, (size_t)area);
            if (same)
                memcpy(levels + area, levels, LANES);
            put(to, levels, 3 * step, same ? area : 3 * step);
            to += 3 * step;
            continue;
        }
        for (Py_ssize_t channel = 0; channel < 3; channel++) {
            float mean = cut->scale[channel], deviation = cut->scale[3 + channel];
            for (Py_ssize_t k = 0; channel < channels && k < area; k++)
                values[k] = levels[channel * step + k];
            for (Py_ssize_t k = 0; k < area; k++)
                scaled[k] = (values[k] - mean) / deviation;
            for (Py_ssize_t time = 0; time < temporal; time++, to += area * 4)
                put(to, (const uint8_t *)scaled, area * 4, area * 4);
        }
    }
#if defined(X86)
    _mm_sfence();
#endif
}

INLINE void cut_any(const Cut *cut, int avx2)
{
    if (cut->temporal == 2 && cut->channels == 1 && cut->patch == 14)
        cut_patches(cut, 14, 1, 2, avx2);
    else if (cut->temporal == 2 && cut->channels == 1 && cut->patch == 16)
        cut_patches(cut, 16, 1, 2, avx2);
    else if (cut->temporal == 2 && cut->channels == 3 && cut->patch == 14)
        cut_patches(cut, 14, 3, 2, avx2);
    else if (cut->temporal == 2 && cut->channels == 3 && cut->patch == 16)
        cut_patches(cut, 16, 3, 2, avx2);
    else
        cut_patches(cut, cut->patch, cut->channels, cut->temporal, avx2);
}

static void cut_plain(const Cut *cut)
{
    cut_any(cut, 0);
}

#if defined(X86)
AVX2 static void cut_avx2(const Cut *cut)
{
    cut_any(cut, 1);
}
#endif

/* In the order of `kernels()`. */
static void (*const CUTTERS_THERE[])(const Cut *) = {
    cut_plain,
#if defined(X86)
    cut_plain,
    cut_avx2,
#endif
#if defined(AVX512)
    cut_avx2, /* memory is the limit */
#endif
};

#endif
