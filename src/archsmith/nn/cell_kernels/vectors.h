// Vectors of floats as wide as the processor has them, and the functions of a cell on them. GCC's vector extensions:
// the same source serves AVX-512, AVX2, SSE and NEON.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace archsmith {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float V __attribute__((vector_size(4 * WIDTH), may_alias));
typedef V AnyV __attribute__((aligned(4)));  // wherever it lies
typedef int32_t I __attribute__((vector_size(4 * WIDTH), may_alias));

inline V splat(float x) { return x - V{}; }
inline V load(const float* from) { return *reinterpret_cast<const AnyV*>(from); }
inline void store(float* to, V x) { *reinterpret_cast<AnyV*>(to) = x; }
// The first `count` lanes alone; the rest are zeros.
inline V load(const float* from, long count) {
#if defined(__AVX512F__)
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    V x{};
    std::memcpy(&x, from, count * sizeof(float));
    return x;
#endif
}
inline void store(float* to, V x, long count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)x);
#else
    std::memcpy(to, &x, count * sizeof(float));
#endif
}
inline I bits(V x) { return reinterpret_cast<I&>(x); }
inline V floats(I x) { return reinterpret_cast<V&>(x); }

inline bool all(I lanes) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)lanes, (__m512i)lanes) == 0xFFFF;
#else
    int32_t every = -1;
    for (int i = 0; i < WIDTH; i++) every &= lanes[i];
    return every != 0;
#endif
}

// Half of a butterfly: lane j of the lower result is a[j] where j has no bit `step` and b[j - step] where it has; of the
// upper one a[j + step] and b[j].
template <int step, bool upper, int... j>
inline V mixed(V a, V b, std::integer_sequence<int, j...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, ((j & step) ? (upper ? WIDTH + j : WIDTH + j - step) : (upper ? j + step : j))...);
#else
    return __builtin_shuffle(a, b, I{((j & step) ? (upper ? WIDTH + j : WIDTH + j - step) : (upper ? j + step : j))...});
#endif
}

template <int step = 1>
inline void transpose(V (&rows)[WIDTH]) {
    if constexpr (step < WIDTH) {
        constexpr std::make_integer_sequence<int, WIDTH> lanes{};
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            if (!(i & step)) {
                V a = rows[i], b = rows[i + step];
                rows[i] = mixed<step, false>(a, b, lanes);
                rows[i + step] = mixed<step, true>(a, b, lanes);
            }
        transpose<2 * step>(rows);
    }
}

// Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits. Not a number stays one throughout:
// every comparison below lets it pass.
constexpr float ROUND = 12582912.0f;

inline V exponential(V x) {
    x = x < -87.0f ? splat(-87.0f) : x;
    x = x > 88.0f ? splat(88.0f) : x;
    V shifted = x * 1.44269504088896341f + ROUND;
    V n = shifted - ROUND;
    V r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    V y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    return y * floats((bits(shifted) - 0x4B400000 + 127) << 23);
}

inline V sigmoid(V x) { return 1.0f / (1.0f + exponential(-x)); }

// The rational function of Eigen, x P(x^2) / Q(x^2), within 3e-7. It is held where it gives 1 (with fused
// multiplication), so that what is saturated has no gradient.
inline V tanh(V x) {
    x = x < -7.99881172180175781f ? splat(-7.99881172180175781f) : x;
    x = x > 7.99881172180175781f ? splat(7.99881172180175781f) : x;
    V s = x * x;
    V p = splat(-2.76076847742355e-16f);
    p = p * s + 2.00018790482477e-13f;
    p = p * s + -8.60467152213735e-11f;
    p = p * s + 5.12229709037114e-08f;
    p = p * s + 1.48572235717979e-05f;
    p = p * s + 6.37261928875436e-04f;
    p = p * s + 4.89352455891786e-03f;
    V q = splat(1.19825839466702e-06f);
    q = q * s + 1.18534705686654e-04f;
    q = q * s + 2.26843463243900e-03f;
    q = q * s + 4.89352518554385e-03f;
    return x * p / q;
}

// sin(x + quarter * pi / 2): pi / 2 is taken off in three parts. Where a lane is large, infinite or not a number, libm.
template <int quarter>
inline V sine(V x) {
    constexpr float FAR = 30000.0f;
    if (!all((x < FAR) & (x > -FAR))) {
        V y{};
        for (int i = 0; i < WIDTH; i++) y[i] = quarter ? std::cos(x[i]) : std::sin(x[i]);
        return y;
    }
    V shifted = x * 0.636619772367581343f + ROUND;
    V n = shifted - ROUND;
    I q = bits(shifted) + quarter;
    V r = x - n * 1.5703125f;
    r = r - n * 4.83751296997e-04f;
    r = r - n * 7.54978995489e-08f;
    V s = r * r;
    V sin = splat(-1.9515295891e-4f);
    sin = sin * s + 8.3321608736e-3f;
    sin = sin * s + -1.6666654611e-1f;
    sin = sin * (s * r) + r;
    V cos = splat(2.443315711809948e-5f);
    cos = cos * s + -1.388731625493765e-3f;
    cos = cos * s + 4.166664568298827e-2f;
    cos = cos * (s * s) + (1.0f - 0.5f * s);
    V y = (q & 1) != 0 ? cos : sin;
    return (q & 2) != 0 ? -y : y;
}

// --- what a cell is made of, numbered as in plan.py --------------------------------------------------------------

enum Combination { ADD, MULTIPLY, MAX, ALONE };  // ALONE: there is nothing to combine, as the products have added up
enum Activation { IDENTITY, TANH, SIGMOID, RELU, SIN };

template <int combination>
inline V combine(V left, V right) {
    if constexpr (combination == ALONE) return left;
    if constexpr (combination == ADD) return left + right;
    if constexpr (combination == MULTIPLY) return left * right;
    if constexpr (combination == MAX) return ((left >= right) | (left != left)) ? left : right;
}

template <int activation>
inline V activate(V p) {
    if constexpr (activation == IDENTITY) return p;
    if constexpr (activation == TANH) return tanh(p);
    if constexpr (activation == SIGMOID) return sigmoid(p);
    if constexpr (activation == RELU) return p <= 0.0f ? V{} : p;
    if constexpr (activation == SIN) return sine<0>(p);
}

// dp from da; `kept` is a, except for sin, which keeps p.
template <int activation>
inline V derive(V gradient, V kept) {
    if constexpr (activation == IDENTITY) return gradient;
    if constexpr (activation == TANH) return gradient * (1.0f - kept * kept);
    if constexpr (activation == SIGMOID) return gradient * (1.0f - kept) * kept;
    if constexpr (activation == RELU) return kept <= 0.0f ? V{} : gradient;
    if constexpr (activation == SIN) return gradient * sine<1>(kept);
}

// As PyTorch splits it: the gradient goes to the larger one, half to each where both are equal.
inline V larger(V gradient, V mine, V other) {
    return mine < other ? V{} : (mine == other ? gradient * 0.5f : gradient);
}

}  // namespace archsmith
