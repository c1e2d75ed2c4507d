// What both passes of a layer share: how it is given, how it is divided among threads, and where its blocks lie.
//
// The rows of the batch are split among the threads, which then need not wait for each other; where a part would have
// too few rows, the units are split as well, and all blocks of a unit belong to one thread. Such threads exchange h_t
// at each step, and in the backward pass their parts of dh_{t-1}.
#pragma once
#include "machine.h"
#include "products.h"
#include "team.h"

namespace archsmith {

constexpr long BLOCK = 256;        // units that the machine works on at a time
constexpr long ROWS_OF_A_PART = 8;  // below that, a thread waits for the weights more than it computes

enum Kind { XP, HP, VALUE, H, C, C_PREV, SCRATCH, GRADIENT_H, GRADIENT_C, GRADIENT_C_PREV, DHP, DXP, NOTHING };
struct Slot {
    int32_t kind, index;
};
using Compiled = void (*)(Blocks, long);

// All of 8 bytes; native.py fills it by these names. [..] are shapes: T steps, B rows, n units, d inputs, L leaves.
struct Layer {
    int64_t steps, batch, units, inputs, leaves, adds, threads, row_parts, pairs;  // adds: leaves that add, A
    const int32_t* order;  // the leaves, those that add first
    OpenMP openmp;
    const float *x, *weight_ih, *weight_hh, *h0, *c0, *bias, *mask;
    float *hs, *cs;
    float *xp;              // [parts of units, T B, L, units of the part], leaves in order; h is added to the first A
    float *hp;              // [T, parts of units, B, L - A, units of the part]; of one step, unless kept
    float *values;          // [T, count, B, n]; likewise
    int64_t value_count, keep;
    float *masked;          // [T, B, n]: h_{t-1} mask, or null
    const Slot* slots;
    int64_t slot_count;
    const Instruction* program;
    int64_t length;
    Compiled compiled;      // in the program's place, or null
    // backward
    const float *grad_hs, *grad_cs;          // or null
    float *dhp, *dxp;                        // [T B, L n] and [T B, (L - A) n]
    float *dx, *dweight_ih, *dweight_hh, *dh0, *dc0;  // or null
};

struct Range {
    long begin, end;
    long size() const { return end - begin; }
};

// The part of a thread.
struct Share {
    Range rows, units;
    long unit_part, unit_parts, row_part, row_parts;

    Share(const Layer& layer, int number, int count) {
        row_parts = std::clamp<long>(layer.batch / ROWS_OF_A_PART, 1, count);
        if (layer.row_parts) row_parts = std::min<long>(layer.row_parts, count);
        while (count % row_parts) row_parts--;
        unit_parts = count / row_parts;
        row_part = number / unit_parts, unit_part = number % unit_parts;
        rows = {part(layer.batch, row_parts, row_part), part(layer.batch, row_parts, row_part + 1)};
        units = of_units(layer, unit_part);
    }
    Range of_units(const Layer& layer, long i) const {
        return {part(layer.units, unit_parts, i), part(layer.units, unit_parts, i + 1)};
    }
};

inline Range of(long count, int number, int threads) {
    return {part(count, threads, number), part(count, threads, number + 1)};
}

// Where the blocks of a program lie at step t in row r: base + t step + r row + the unit.
class Places {
  public:
    struct Place {
        float* base;
        long step, row;
    };
    std::vector<float*> blocks;

    Places(const Layer& layer, const Share& share, float* scratch, const float* nothing)
        : blocks(layer.slot_count), layer_(layer), places_(layer.slot_count) {
        const long B = layer.batch, n = layer.units, L = layer.leaves, width = share.units.size(), first = share.units.begin;
        const long all = B * L * n, others = L - layer.adds;
        for (long i = 0; i < layer.slot_count; i++) {
            const long k = layer.slots[i].index;
            Place& at = places_[i];
            switch (layer.slots[i].kind) {
                case XP: at = {layer.xp + layer.steps * B * L * first + k * width, B * L * width, L * width}; break;
                case HP:
                    at = {layer.hp + B * others * first + k * width, layer.keep ? B * others * n : 0, others * width};
                    break;
                case VALUE:
                    at = {layer.values + k * B * n + first, layer.keep ? layer.value_count * B * n : 0, n};
                    break;
                case H: at = {layer.hs + first, B * n, n}; break;
                case C: at = {layer.cs + first, B * n, n}; break;
                case C_PREV: at = {layer.cs + first - B * n, B * n, n}; break;
                case DHP: at = {layer.dhp + k * n + first, all, L * n}; break;
                case DXP: at = {layer.dxp + k * n + first, B * others * n, others * n}; break;
                case SCRATCH: at = {scratch + k * BLOCK, 0, 0}; break;
                case NOTHING: at = {const_cast<float*>(nothing), 0, 0}; break;
                default: at = {nullptr, 0, 0};  // set for each block
            }
        }
    }

    // Calls run(count, unit) for the blocks of a row, with `blocks` in place; `more(i, kind, unit)` gives what is set
    // for each block. Units count from the first one of the part.
    template <class More, class Run>
    void row(const Share& share, long t, long r, const More& more, const Run& run) {
        const long width = share.units.size(), chunks = ceil_div(width, BLOCK);
        const long chunk = chunks ? ceil_div(ceil_div(width, chunks), WIDTH) * WIDTH : 0;
        for (long u = 0; u < width; u += chunk) {
            for (size_t i = 0; i < blocks.size(); i++) {
                const Place& at = places_[i];
                const int kind = layer_.slots[i].kind;
                if (kind == C_PREV && t == 0)
                    blocks[i] = const_cast<float*>(layer_.c0) + share.units.begin + r * layer_.units + u;
                else if (at.base)
                    blocks[i] = at.base + t * at.step + r * at.row + (kind == SCRATCH || kind == NOTHING ? 0 : u);
                else
                    blocks[i] = more(kind, u);
            }
            run(std::min(chunk, width - u), u);
        }
    }

  private:
    const Layer& layer_;
    std::vector<Place> places_;
};

// h_{t-1} as the recurrent product reads it, row by row of all steps.
inline const float* previous(const Layer& layer, long row) {
    if (layer.masked) return layer.masked + row * layer.units;
    return row < layer.batch ? layer.h0 + row * layer.units : layer.hs + (row - layer.batch) * layer.units;
}

inline thread_local Arena arena;

}  // namespace archsmith
