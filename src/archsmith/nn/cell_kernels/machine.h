// A virtual machine for the elementwise part of a cell: an instruction is one value of the cell, over a block of units
// that fits the first cache. Nothing is compiled for a cell; a block is long enough that reading instructions is cheap.
#pragma once
#include "vectors.h"

namespace archsmith {

// Operands are numbers of blocks, or -1. plan.py writes these; the layout is its `_INSTRUCTION`.
struct Instruction {
    int32_t code;
    int32_t left, right;    // what the value combines
    int32_t out, p_out;     // forward: where a goes, and p where someone wants it. Backward: where dleft and dright go
    int32_t gradient;       // backward: da
    int32_t extra;          // backward: what is added to dp, the gradient of c
    int32_t kept;           // backward: a, or p of sin
};

// Codes: combination * 5 + activation; these beside them.
constexpr int SUM = 20, COPY = 21;

using Blocks = float* const*;

template <int combination, int activation>
void forward_one(const Instruction& at, Blocks blocks, long count) {
    const float *left = blocks[at.left], *right = combination == ALONE ? left : blocks[at.right];
    float *out = at.out < 0 ? nullptr : blocks[at.out], *p_out = at.p_out < 0 ? nullptr : blocks[at.p_out];
    long i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        V p = combine<combination>(load(left + i), load(right + i));
        if (p_out) store(p_out + i, p);
        if (out) store(out + i, activate<activation>(p));
    }
    if (long rest = count - i) {
        V p = combine<combination>(load(left + i, rest), load(right + i, rest));
        if (p_out) store(p_out + i, p, rest);
        if (out) store(out + i, activate<activation>(p), rest);
    }
}

template <int combination, int activation>
void backward_one(const Instruction& at, Blocks blocks, long count) {
    const float *gradient = blocks[at.gradient], *kept = blocks[activation == IDENTITY ? at.gradient : at.kept];
    const float* extra = at.extra < 0 ? nullptr : blocks[at.extra];
    const float *left = gradient, *right = gradient;
    if (combination == MULTIPLY || combination == MAX) left = blocks[at.left], right = blocks[at.right];
    float *dleft = at.out < 0 ? nullptr : blocks[at.out], *dright = at.p_out < 0 ? nullptr : blocks[at.p_out];
    auto step = [&](auto get, auto put, long i) {
        V dp = derive<activation>(get(gradient + i), activation == IDENTITY ? V{} : get(kept + i));
        if (extra) dp += get(extra + i);
        if constexpr (combination == ADD || combination == ALONE) {
            if (dleft) put(dleft + i, dp);
            if (dright) put(dright + i, dp);
        } else {
            V l = get(left + i), r = get(right + i);
            if (dleft) put(dleft + i, combination == MULTIPLY ? dp * r : larger(dp, l, r));
            if (dright) put(dright + i, combination == MULTIPLY ? dp * l : larger(dp, r, l));
        }
    };
    long i = 0;
    for (; i + WIDTH <= count; i += WIDTH)
        step([](const float* from) { return load(from); }, [](float* to, V x) { store(to, x); }, i);
    if (long rest = count - i)
        step([=](const float* from) { return load(from, rest); }, [=](float* to, V x) { store(to, x, rest); }, i);
}

inline void sum(const float* left, const float* right, float* out, long count) {
    long i = 0;
    for (; i + WIDTH <= count; i += WIDTH) store(out + i, load(left + i) + load(right + i));
    if (long rest = count - i) store(out + i, load(left + i, rest) + load(right + i, rest), rest);
}

using Operation = void (*)(const Instruction&, Blocks, long);
#define ARCHSMITH_ROW(function, c) function<c, 0>, function<c, 1>, function<c, 2>, function<c, 3>, function<c, 4>
constexpr Operation FORWARD[] = {
    ARCHSMITH_ROW(forward_one, ADD), ARCHSMITH_ROW(forward_one, MULTIPLY), ARCHSMITH_ROW(forward_one, MAX),
    ARCHSMITH_ROW(forward_one, ALONE)};
constexpr Operation BACKWARD[] = {
    ARCHSMITH_ROW(backward_one, ADD), ARCHSMITH_ROW(backward_one, MULTIPLY), ARCHSMITH_ROW(backward_one, MAX),
    ARCHSMITH_ROW(backward_one, ALONE)};

inline void interpret(
    const Operation* operations, const Instruction* program, long length, Blocks blocks, long count) {
    for (const Instruction* at = program; at != program + length; at++) {
        if (at->code == SUM)
            sum(blocks[at->left], blocks[at->right], blocks[at->out], count);
        else if (at->code == COPY)
            std::memmove(blocks[at->out], blocks[at->left], count * sizeof(float));
        else
            operations[at->code](*at, blocks, count);
    }
}

}  // namespace archsmith
