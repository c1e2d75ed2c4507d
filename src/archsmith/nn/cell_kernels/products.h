// Matrix products for a few rows at a time: C = init + A B, with B packed into panels of columns once and used often.
//
// A tile of up to ROWS rows and one panel of columns stays in registers while it runs down the panel: for each k, one
// load of the panel's row and one broadcast for each row of A. Ten rows already run at nine tenths of the processor's
// peak, whereas libraries pack A as well, which does not pay for twenty rows.
#pragma once
#include "vectors.h"

#include <algorithm>
#include <array>
#include <utility>

namespace archsmith {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 14;  // 28 of 32 registers
#else
constexpr int ROWS = 6;  // 12 of 16
#endif
constexpr int VECTORS = 2;
constexpr int PANEL = VECTORS * WIDTH;  // columns
constexpr long DEPTH = 768;             // k at a time: the part of a panel that is in use stays in the second cache

constexpr long AHEAD = 24;              // rows of a panel that are asked for early, since it comes from the third cache

// How numbers lie in A and in panels: single ones, or pairs of bf16 that follow each other in k.
struct Single {
    using Item = float;
    static constexpr long PER = 1;
    static Item pack(float first, float) { return first; }
    static V load_items(const float* from) { return load(from); }
    static V paired(V first, V) { return first; }
    static V multiply_add(V sum, const Item* a, V b) { return sum + splat(*a) * b; }
};

inline uint32_t rounded(float x) {  // to bf16, to nearest even
    uint32_t u;
    std::memcpy(&u, &x, 4);
    if (x != x) return 0x7FC0;
    return (u + 0x7FFF + ((u >> 16) & 1)) >> 16;
}

#if defined(__AVX512BF16__)
struct Pairs {
    using Item = uint32_t;
    static constexpr long PER = 2;
    static Item pack(float first, float second) { return rounded(first) | rounded(second) << 16; }
    static V load_items(const float* from) {
        return (V)_mm512_cvtne2ps_pbh((__m512)load(from + WIDTH), (__m512)load(from));
    }
    static V paired(V first, V second) {
        const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first));
        const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second));
        return (V)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
    static V multiply_add(V sum, const Item* a, V b) {
        return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)*a), (__m512bh)b);
    }
};
#endif

// One tile. A[r][k] is a[r * row + k * column]. Of the last vector of each row, `last` numbers are columns of C. C and
// init may be the same.
template <class P, int rows, int vectors>
void tile(long depth, const typename P::Item* a, long row, long column, const typename P::Item* panel,
          const float* init, long init_row, float* c, long c_row, int last) {
    V sum[rows][vectors];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        __builtin_prefetch(init + r * init_row);  // needed at the end
        __builtin_prefetch(init + r * init_row + WIDTH);
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sum[r][j] = V{};
    }
    for (long k = 0; k < depth; k++) {
        V b[vectors];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) b[j] = *reinterpret_cast<const V*>(panel + k * PANEL + j * WIDTH);
        __builtin_prefetch(panel + (k + AHEAD) * PANEL);
        if (vectors == 2) __builtin_prefetch(panel + (k + AHEAD) * PANEL + WIDTH);
        const typename P::Item* at = a + k * column;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[r][j] = P::multiply_add(sum[r][j], at + r * row, b[j]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        const float* from = init + r * init_row + (vectors - 1) * WIDTH;
        float* to = c + r * c_row + (vectors - 1) * WIDTH;
        if (vectors == 2) store(to - WIDTH, sum[r][0] + load(from - WIDTH));
        if (last == WIDTH) store(to, sum[r][vectors - 1] + load(from));
        else store(to, sum[r][vectors - 1] + load(from, last), last);
    }
}

template <class P>
using Tile = void (*)(long, const typename P::Item*, long, long, const typename P::Item*, const float*, long, float*, long, int);

template <class P, int... rows>
constexpr std::array<std::array<Tile<P>, 2>, sizeof...(rows)> tiles(std::integer_sequence<int, rows...>) {
    return {{{tile<P, rows + 1, 1>, tile<P, rows + 1, 2>}...}};
}
template <class P>
constexpr auto TILES = tiles<P>(std::make_integer_sequence<int, ROWS>());

alignas(64) constexpr float ZEROS[PANEL] = {};

// A tile of any number of rows up to ROWS and of columns up to PANEL; init is null (zeros), a row for all (init_row 0)
// or a matrix.
template <class P>
void any_tile(int rows, int columns, long depth, const typename P::Item* a, long row, long column,
              const typename P::Item* panel, const float* init, long init_row, float* c, long c_row) {
    if (!init) init = ZEROS, init_row = 0;
    const int vectors = columns > WIDTH ? 2 : 1;
    TILES<P>[rows - 1][vectors - 1](
        depth, a, row, column, panel, init, init_row, c, c_row, columns - (vectors - 1) * WIDTH);
}

inline long ceil_div(long a, long b) { return (a + b - 1) / b; }

// A part of `count` things, as even as can be: where part `i` of `parts` begins.
inline long part(long count, long parts, long i) { return count / parts * i + std::min(i, count % parts); }

template <class P>
constexpr long items(long depth) { return ceil_div(depth, P::PER); }
template <class P>
long packed_size(long depth, long columns) { return items<P>(depth) * PANEL * ceil_div(columns, PANEL); }

// Packs panels `first` to `last` of B, [depth, columns]; the columns that are missing at the end are zeros.
// `get(column)` points to a column's first number; the next ones follow it.
template <class P, class Get>
void pack_columns(long depth, long columns, Get get, typename P::Item* packed, long first, long last) {
    const long count = items<P>(depth);
    static constexpr typename P::Item NOTHING{};
    for (long p = first; p < last; p++) {
        typename P::Item* panel = packed + p * count * PANEL;
        for (long j0 = 0; j0 < PANEL; j0 += WIDTH) {
            const float* from[WIDTH];
            for (long j = 0; j < WIDTH; j++)
                from[j] = p * PANEL + j0 + j < columns ? get(p * PANEL + j0 + j) : nullptr;
            long k = 0;
            if (from[WIDTH - 1])
                for (; (k + WIDTH) * P::PER <= depth; k += WIDTH) {
                    V square[WIDTH];
#pragma GCC unroll 16
                    for (long j = 0; j < WIDTH; j++) square[j] = P::load_items(from[j] + k * P::PER);
                    transpose(square);
#pragma GCC unroll 16
                    for (long i = 0; i < WIDTH; i++)
                        store(reinterpret_cast<float*>(panel + (k + i) * PANEL + j0), square[i]);
                }
            for (; k < count; k++)
                for (long j = 0; j < WIDTH; j++)
                    panel[k * PANEL + j0 + j] =
                        from[j] ? P::pack(from[j][k * P::PER],
                                          k * P::PER + 1 < depth ? from[j][k * P::PER + 1] : 0.0f)
                                : NOTHING;
        }
    }
}

// The same of a matrix that is given by rows: `get(k)` points to row k, of `columns` numbers.
template <class P, class Get>
void pack_rows(long depth, long columns, Get get, typename P::Item* packed, long first, long last) {
    const long count = items<P>(depth);
    static constexpr float NOTHING[PANEL] = {};
    for (long p = first; p < last; p++) {
        const long width = std::min<long>(PANEL, columns - p * PANEL);
        typename P::Item* panel = packed + p * count * PANEL;
        for (long k = 0; k < count; k++) {
            const float* even = get(k * P::PER) + p * PANEL;
            const float* odd = P::PER == 2 && k * 2 + 1 < depth ? get(k * 2 + 1) + p * PANEL : NOTHING;
            float* to = reinterpret_cast<float*>(panel + k * PANEL);
            for (long j = 0; j < PANEL; j += WIDTH) {
                const int here = static_cast<int>(std::clamp<long>(width - j, 0, WIDTH));
                store(to + j, here == WIDTH ? P::paired(load(even + j), load(odd + j))
                                            : P::paired(load(even + j, here), load(odd + j, here)));
            }
        }
    }
}

// Rows of A as items: for single numbers they stay where they are.
template <class P>
void convert(const float* from, long count, typename P::Item* to) {
    long k = 0;
    for (; (k + WIDTH) * P::PER <= count; k += WIDTH) store(reinterpret_cast<float*>(to + k), P::load_items(from + k * P::PER));
    for (; k < items<P>(count); k++)
        to[k] = P::pack(from[k * P::PER], k * P::PER + 1 < count ? from[k * P::PER + 1] : 0.0f);
}

// C[rows, columns of the panels first..last] = init + A B. `depth` counts items.
template <class P>
void product(long rows, long columns, long depth, const typename P::Item* a, long row, long column,
             const typename P::Item* packed, long packed_depth, long first, long last, const float* init,
             long init_row, float* c, long c_row) {
    const long groups = ceil_div(rows, ROWS);
    for (long k0 = 0; k0 == 0 || k0 < depth; k0 += DEPTH) {  // once where depth is 0, for init
        const long count = std::min(DEPTH, depth - k0);
        for (long p = first; p < last; p++) {
            const int width = static_cast<int>(std::min<long>(PANEL, columns - p * PANEL));
            for (long g = 0; g < groups; g++) {
                const long r0 = part(rows, groups, g), r1 = part(rows, groups, g + 1);
                float* to = c + r0 * c_row + p * PANEL;
                const float* from = k0 ? to : init ? init + r0 * init_row + p * PANEL : nullptr;
                any_tile<P>(static_cast<int>(r1 - r0), width, count, a + r0 * row + k0 * column, row, column,
                            packed + (p * packed_depth + k0) * PANEL, from, k0 ? c_row : init_row, to, c_row);
            }
        }
    }
}

}  // namespace archsmith
