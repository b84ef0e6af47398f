/* Window and resize with AVX-512: what _resample.h does, four times as wide. Included by it. */

enum { NEAR512 = 32, QUADS512 = 2 };

/* 32 resized pixels of a row, made of 64 bytes that lie together. `places` says where among those the first pair of
 * each pixel is, as two numbers of 16 bits: in each quarter of the first register pixels 8n to 8n + 3, in the second
 * 8n + 4 to 8n + 7, so that packing puts all of them in order.
 */
typedef struct {
    int32_t start, pairs;
    uint8_t places[QUADS512][LANES][4];
} Block512;

/* Weights are (blocks, pairs, QUADS512, LANES, 2). */
static Near near_avx512(const Line *line)
{
    const Near near = room_near(line, NEAR512, WIDEST, NEAR512, sizeof(Block512));
    Block512 *const every = near.block;
    const Py_ssize_t pairs = near.pairs;
    for (Py_ssize_t k = 0; near.blocks && k < line->target; k++) {
        Block512 *block = every + k / NEAR512;
        const Py_ssize_t among = k % NEAR512, quad = among / QUAD % 2, lane = among / EIGHT * QUAD + among % QUAD;
        const int own = line->counts[k] / 2;
        block->start = line->starts[k / NEAR512 * NEAR512];
        block->pairs = own > block->pairs ? own : block->pairs;
        const uint8_t place = (uint8_t)(line->starts[k] - block->start);
        memcpy(block->places[quad][lane], (uint8_t[4]){place, 0, (uint8_t)(place + 1), 0}, 4);
        for (Py_ssize_t pair = 0; pair < pairs; pair++)
            memcpy(near.weights + (((k / NEAR512 * pairs + pair) * QUADS512 + quad) * LANES + lane) * 2,
                   line->weights + k * line->width + 2 * pair, 2 * sizeof *near.weights);
    }
    return near;
}

/* One row of one channel; up to WIDEST - 1 bytes behind the result may be written too. */
AVX512 static void across_near_avx512(const Near *near, int bits, const uint8_t *row, uint8_t *resized)
{
    const __mmask64 low_bytes = 0x5555555555555555; /* of numbers of 16 bits: what is above a level is 0 */
    const __m128i shift = _mm_cvtsi32_si128(bits);
    const __m512i half = _mm512_set1_epi32((1 << bits) >> 1), two = _mm512_set1_epi8(2);
    const __m512i *weights = (const __m512i *)(const void *)near->weights;
    const Block512 *block = near->block, *last = block + near->blocks;
    for (const Py_ssize_t step = QUADS512 * near->pairs; block < last; block++, resized += NEAR512, weights += step) {
        const __m512i levels = _mm512_loadu_si512(row + block->start);
        __m512i one = _mm512_loadu_si512(block->places[0]), other = _mm512_loadu_si512(block->places[1]);
        __m512i first = half, second = half;
        for (int k = 0; k < block->pairs; k++) {
            const __m512i mine = _mm512_maskz_permutexvar_epi8(low_bytes, one, levels);
            const __m512i others = _mm512_maskz_permutexvar_epi8(low_bytes, other, levels);
            first = _mm512_dpwssd_epi32(first, mine, _mm512_loadu_si512(weights + 2 * k));
            second = _mm512_dpwssd_epi32(second, others, _mm512_loadu_si512(weights + 2 * k + 1));
            one = _mm512_add_epi8(one, two);
            other = _mm512_add_epi8(other, two);
        }
        const __m512i words = _mm512_packs_epi32(_mm512_sra_epi32(first, shift), _mm512_sra_epi32(second, shift));
        const __m512i positive = _mm512_max_epi16(words, _mm512_setzero_si512());
        _mm256_storeu_si256((__m256i *)(void *)resized, _mm512_cvtusepi16_epi8(positive));
    }
}

AVX512 static void down_avx512(const Line *line, Py_ssize_t row, const uint8_t *rows, Py_ssize_t stride,
                               uint8_t *resized, Py_ssize_t length)
{
    const uint8_t *from = rows + line->starts[row] * stride;
    const int16_t *weights = line->weights + row * line->width;
    const Py_ssize_t count = line->counts[row];
    const __m128i shift = _mm_cvtsi32_si128(line->bits);
    const __m512i half = _mm512_set1_epi32((1 << line->bits) >> 1), zero = _mm512_setzero_si512();
    for (Py_ssize_t first = 0; first < length; first += WIDEST, from += WIDEST) {
        __m512i sums[QUADS] = {half, half, half, half};
        for (Py_ssize_t k = 0; k < count; k += 2) {
            int32_t pair;
            memcpy(&pair, weights + k, sizeof pair);
            const __m512i both = _mm512_set1_epi32(pair), one = _mm512_loadu_si512(from + k * stride);
            const __m512i next = _mm512_loadu_si512(from + (k + 1) * stride);
            const __m512i low = _mm512_unpacklo_epi8(one, next), high = _mm512_unpackhi_epi8(one, next);
            sums[0] = _mm512_dpwssd_epi32(sums[0], _mm512_unpacklo_epi8(low, zero), both);
            sums[1] = _mm512_dpwssd_epi32(sums[1], _mm512_unpackhi_epi8(low, zero), both);
            sums[2] = _mm512_dpwssd_epi32(sums[2], _mm512_unpacklo_epi8(high, zero), both);
            sums[3] = _mm512_dpwssd_epi32(sums[3], _mm512_unpackhi_epi8(high, zero), both);
        }
        for (int k = 0; k < QUADS; k++)
            sums[k] = _mm512_sra_epi32(sums[k], shift);
        const __m512i low = _mm512_packs_epi32(sums[0], sums[1]), high = _mm512_packs_epi32(sums[2], sums[3]);
        const __m512i bytes = _mm512_packus_epi16(low, high);
        if (length - first >= WIDEST)
            _mm512_storeu_si512(resized + first, bytes);
        else
            _mm512_mask_storeu_epi8(resized + first, ((__mmask64)1 << (length - first)) - 1, bytes);
    }
}

/* The levels of the first numbers of a row, computed instead of looked up; how many. */
AVX512 static Py_ssize_t on_line_avx512(const Straight *line, const uint16_t *raw, Py_ssize_t columns, uint8_t *to)
{
    const __m512i mask = _mm512_set1_epi16((int16_t)line->mask), flip = _mm512_set1_epi16((int16_t)line->flip);
    const __m512i base = _mm512_set1_epi16((int16_t)line->base), most = _mm512_set1_epi16((int16_t)line->most);
    const __m512i slope = _mm512_set1_epi32(line->slope), start = _mm512_set1_epi32(line->start);
    const __m512i zero = _mm512_setzero_si512();
    const __m128i bits = _mm_cvtsi32_si128(line->bits);
    Py_ssize_t column = 0;
    for (; column + NEAR512 <= columns; column += NEAR512) {
        __m512i number = _mm512_loadu_si512(raw + column);
        number = _mm512_xor_si512(_mm512_and_si512(number, mask), flip);
        number = _mm512_min_epu16(_mm512_subs_epu16(number, base), most);
        __m512i low = _mm512_unpacklo_epi16(number, zero), high = _mm512_unpackhi_epi16(number, zero);
        low = _mm512_sra_epi32(_mm512_add_epi32(_mm512_mullo_epi32(low, slope), start), bits);
        high = _mm512_sra_epi32(_mm512_add_epi32(_mm512_mullo_epi32(high, slope), start), bits);
        const __m512i positive = _mm512_max_epi16(_mm512_packs_epi32(low, high), zero);
        _mm256_storeu_si256((__m256i *)(void *)(to + column), _mm512_cvtusepi16_epi8(positive));
    }
    return column;
}
