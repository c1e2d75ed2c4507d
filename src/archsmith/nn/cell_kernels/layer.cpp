// One layer of any recurrent cell over a sequence, forward and backward. native.py calls it and has the other half of
// the contract: who allocates what, and the programs of a cell.
//
// The rows of the batch are split among the threads, which then need not wait for each other; where a part would have
// too few rows, the units are split as well, and all blocks of a unit belong to one thread. Such threads exchange h_t
// at each step, and in the backward pass their parts of dh_{t-1}.
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

thread_local Arena arena;

template <class P>
bool forward(const Layer& layer) {
    using Item = typename P::Item;
    constexpr bool convert_a = P::PER > 1;
    const long T = layer.steps, B = layer.batch, n = layer.units, d = layer.inputs, L = layer.leaves, A = layer.adds;
    const long most = layer.threads, x_row = convert_a ? items<P>(d) : d, h_row = convert_a ? items<P>(n) : n;
    Item *packed_x, *packed_h, *x, *h;
    float *bias, *scratch;
    const bool there = arena.lay_out([&](Arena& memory) {
        packed_x = memory.take<Item>(packed_size<P>(d, L * n) + most * 2 * packed_size<P>(d, 1));
        packed_h = memory.take<Item>(packed_size<P>(n, L * n) + most * 2 * packed_size<P>(n, 1));
        x = memory.take<Item>(convert_a ? T * B * x_row : 0);
        h = memory.take<Item>(convert_a ? most * B * h_row : 0);
        bias = memory.take<float>(layer.bias ? L * n : 0);
        scratch = memory.take<float>(most * layer.slot_count * BLOCK);
    });
    if (!there) return false;
    Barrier barrier;
    run_team(static_cast<int>(layer.threads), layer.openmp, [&](int number, int count) {
        const Share share(layer, number, count);
        // The columns of both products are the units of a part in all its leaves, side by side: first the leaves that
        // add, whose recurrent product goes on where the product of the inputs lies, then the others.
        struct Columns {
            Range units;
            long leaf, leaves;
            Item *x, *h;
            long count() const { return leaves * units.size(); }
            long panels() const { return ceil_div(count(), PANEL); }
        };
        auto columns = [&](long part_of_units, bool others) {
            Columns some{share.of_units(layer, part_of_units), others ? A : 0, others ? L - A : A, packed_x, packed_h};
            for (long i = 0; i < 2 * part_of_units + others; i++) {
                const long before = share.of_units(layer, i / 2).size() * (i % 2 ? L - A : A);
                some.x += packed_size<P>(d, before), some.h += packed_size<P>(n, before);
            }
            return some;
        };
        for (long i = 0; i < 2 * share.unit_parts; i++) {
            const Columns some = columns(i / 2, i % 2);
            const Range own = of(some.panels(), number, count);
            const auto row = [&](long j) {
                return layer.order[some.leaf + j / some.units.size()] * n + some.units.begin + j % some.units.size();
            };
            pack_columns<P>(d, some.count(), [&](long j) { return layer.weight_ih + row(j) * d; }, some.x, own.begin, own.end);
            pack_columns<P>(n, some.count(), [&](long j) { return layer.weight_hh + row(j) * n; }, some.h, own.begin, own.end);
        }
        if (layer.bias && number == 0)
            for (long i = 0, to = 0; i < share.unit_parts; i++)
                for (long k = 0; k < L; k++) {
                    const Range units = share.of_units(layer, i);
                    std::memcpy(bias + to, layer.bias + layer.order[k] * n + units.begin, units.size() * sizeof(float));
                    to += units.size();
                }
        const Range own_x = of(T * B, number, count);
        const Item* a = reinterpret_cast<const Item*>(layer.x);
        if (convert_a) {
            for (long r = own_x.begin; r < own_x.end; r++) convert<P>(layer.x + r * d, d, x + r * x_row);
            a = x;
        }
        if (layer.masked && number == 0)
            for (long i = 0; i < B * n; i++) layer.masked[i] = layer.h0[i] * layer.mask[i];
        barrier.wait(count);

        // The product of the inputs, of all steps at once.
        const bool by_rows = T * B >= 8 * count;
        const Range rows = by_rows ? own_x : Range{0, T * B};
        for (long i = 0; i < 2 * share.unit_parts; i++) {
            const Columns some = columns(i / 2, i % 2);
            const Range panels = by_rows ? Range{0, some.panels()} : of(some.panels(), number, count);
            const long c_row = L * some.units.size(), at = some.leaf * some.units.size();
            float* c = layer.xp + (T * B * L) * some.units.begin + rows.begin * c_row + at;
            product<P>(rows.size(), some.count(), items<P>(d), a + rows.begin * x_row, x_row, 1, some.x, items<P>(d),
                       panels.begin, panels.end, layer.bias && i % 2 == 0 ? bias + L * some.units.begin : nullptr, 0, c,
                       c_row);
        }
        barrier.wait(count);

        Places places(layer, share, scratch + number * layer.slot_count * BLOCK, ZEROS);
        const Columns adding = columns(share.unit_part, false), others = columns(share.unit_part, true);
        const long width = share.units.size(), B0 = share.rows.begin;
        Item* own_h = convert_a ? h + number * B * h_row : nullptr;
        for (long t = 0; t < T; t++) {
            const float* before = previous(layer, t * B + B0);
            const Item* a_h = reinterpret_cast<const Item*>(before);
            if (convert_a) {
                for (long r = 0; r < share.rows.size(); r++) convert<P>(before + r * n, n, own_h + r * h_row);
                a_h = own_h;
            }
            float* sums = layer.xp + T * B * L * share.units.begin + (t * B + B0) * L * width;
            float* alone = layer.hp + (layer.keep ? t * B * (L - A) * n : 0) + (B * share.units.begin + B0 * width) * (L - A);
            product<P>(share.rows.size(), A * width, items<P>(n), a_h, h_row, 1, adding.h, items<P>(n), 0,
                       adding.panels(), sums, L * width, sums, L * width);
            product<P>(share.rows.size(), (L - A) * width, items<P>(n), a_h, h_row, 1, others.h, items<P>(n), 0,
                       others.panels(), layer.bias ? bias + L * share.units.begin + A * width : nullptr, 0, alone,
                       (L - A) * width);
            for (long r = B0; r < share.rows.end; r++) {
                places.row(share, t, r, [](int, long) -> float* { return nullptr; }, [&](long units, long) {
                    if (layer.compiled) layer.compiled(places.blocks.data(), units);
                    else interpret(FORWARD, layer.program, layer.length, places.blocks.data(), units);
                });
                if (layer.masked && t + 1 < T) {
                    const long at = (t * B + r) * n, mask = r * n;
                    for (long u = share.units.begin; u < share.units.end; u++)
                        layer.masked[at + B * n + u] = layer.hs[at + u] * layer.mask[mask + u];
                }
            }
            if (share.unit_parts > 1) barrier.wait(count);
        }
    });
    return true;
}

constexpr long GROUPS = 4;  // tiles of A that stay in the second cache while the panels pass by
constexpr long SIZE_OF_A = DEPTH * ROWS + WIDTH;

// C[rows m, columns] = D^T B, where D is `depth` rows of `all` numbers: the gradient of weights.
template <class P>
void transposed_product(Range m, long all, long columns, long depth, const float* d, const typename P::Item* packed,
                        typename P::Item* tiles_of_a, float* c) {
    const long groups = ceil_div(m.size(), ROWS), panels = ceil_div(columns, PANEL);
    const auto row = [&](long g) { return m.begin + part(m.size(), groups, g); };
    for (long g0 = 0; g0 < groups; g0 += GROUPS) {
        const long g1 = std::min(g0 + GROUPS, groups);
        for (long k0 = 0; k0 < items<P>(depth); k0 += DEPTH) {
            const long count = std::min(DEPTH, items<P>(depth) - k0);
            for (long g = g0; g < g1; g++) {
                const long rows = row(g + 1) - row(g);
                typename P::Item* to = tiles_of_a + (g - g0) * SIZE_OF_A;
                for (long k = 0; k < count; k++) {
                    const float* even = d + (k0 + k) * P::PER * all + row(g);
                    const float* odd = P::PER == 2 && (k0 + k) * 2 + 1 < depth ? even + all : ZEROS;
                    float* at = reinterpret_cast<float*>(to + k * rows);
                    // Whole vectors, where D goes on so far: the next k overwrites what is too much.
                    const bool whole =
                        k + 1 < count && ((k0 + k) * P::PER + P::PER - 1) * all + row(g) + rows + WIDTH <= (depth - 1) * all;
                    for (long r = 0; r < rows; r += WIDTH) {
                        const int here = static_cast<int>(std::min<long>(WIDTH, rows - r));
                        const float* second = odd == ZEROS ? ZEROS : odd + r;
                        if (whole) store(at + r, P::paired(load(even + r), load(second)));
                        else store(at + r, P::paired(load(even + r, here), load(second, here)), here);
                    }
                }
            }
            for (long p = 0; p < panels; p++)
                for (long g = g0; g < g1; g++) {
                    const int rows = static_cast<int>(row(g + 1) - row(g));
                    float* to = c + row(g) * columns + p * PANEL;
                    any_tile<P>(rows, static_cast<int>(std::min<long>(PANEL, columns - p * PANEL)), count,
                                tiles_of_a + (g - g0) * SIZE_OF_A, 1, rows,
                                packed + (p * items<P>(depth) + k0) * PANEL, k0 ? to : nullptr, columns, to, columns);
                }
        }
    }
}

template <class P>
bool backward(const Layer& layer) {
    using Item = typename P::Item;
    constexpr bool convert_a = P::PER > 1;
    const long T = layer.steps, B = layer.batch, n = layer.units, d = layer.inputs, L = layer.leaves, N = T * B;
    const long most = layer.threads, partial_row = ceil_div(n, WIDTH) * WIDTH;
    const long own_items = items<P>(L * n), others = L - layer.adds;
    // The gradients of the inputs' products, by leaves that follow each other in one place.
    struct Run {
        long leaf, leaves, row;
        const float* gradient;
    };
    std::vector<Run> runs;
    std::vector<bool> adds(L, true);
    for (long k = layer.adds; k < L; k++) adds[layer.order[k]] = false;
    for (long k = 0, other = 0; k < L; k++) {
        if (k && adds[k] == adds[k - 1]) runs.back().leaves++;
        else if (adds[k]) runs.push_back({k, 1, L * n, layer.dhp + k * n});
        else runs.push_back({k, 1, others * n, layer.dxp + other * n});
        other += !adds[k];
    }
    Item *packed_hh, *packed_ih, *packed_h, *packed_x, *a_of_steps, *a_of_x, *tiles_of_a;
    float *partial, *carried, *scratch, *blocks;
    const bool there = arena.lay_out([&](Arena& memory) {
        packed_hh = memory.take<Item>(packed_size<P>(L * n, n) + most * packed_size<P>(2, n));
        packed_ih = memory.take<Item>(layer.dx ? packed_size<P>(L * n, d) + packed_size<P>(runs.size() * P::PER, d) : 0);
        packed_h = memory.take<Item>(layer.dweight_hh ? packed_size<P>(N, n) : 0);
        packed_x = memory.take<Item>(layer.dweight_ih ? packed_size<P>(N, d) : 0);
        a_of_steps = memory.take<Item>(most * B * own_items);
        a_of_x = memory.take<Item>(convert_a && layer.dx ? N * own_items + N * L : 0);
        tiles_of_a = memory.take<Item>(most * GROUPS * SIZE_OF_A);
        partial = memory.take<float>(2 * most * B * partial_row);
        carried = memory.take<float>(2 * B * n);
        scratch = memory.take<float>(most * layer.slot_count * BLOCK);
        blocks = memory.take<float>((2 * most + 1) * BLOCK);
    });
    if (!there) return false;
    const float* nothing = blocks + 2 * most * BLOCK;
    std::memset(blocks + 2 * most * BLOCK, 0, BLOCK * sizeof(float));
    Barrier barrier;
    run_team(static_cast<int>(layer.threads), layer.openmp, [&](int number, int count) {
        const Share share(layer, number, count);
        const long panels = ceil_div(n, PANEL);
        // Rows of the weights of a part: its units in all blocks, one after the other.
        const Item* mine = nullptr;
        Item* to = packed_hh;
        for (long i = 0; i < share.unit_parts; i++) {
            const Range units = share.of_units(layer, i);
            const long depth = L * units.size();
            const auto get = [&](long j) {
                return layer.weight_hh + (j / units.size() * n + units.begin + j % units.size()) * n;
            };
            const Range own = of(panels, number, count);
            pack_rows<P>(depth, n, get, to, own.begin, own.end);
            if (i == share.unit_part) mine = to;
            to += packed_size<P>(depth, n);
        }
        const Range of_d = of(ceil_div(d, PANEL), number, count), of_n = of(panels, number, count);
        if (layer.dx) {
            Item* at = packed_ih;
            for (const Run& run : runs) {
                const auto get = [&](long k) { return layer.weight_ih + (run.leaf * n + k) * d; };
                pack_rows<P>(run.leaves * n, d, get, at, of_d.begin, of_d.end);
                at += packed_size<P>(run.leaves * n, d);
            }
        }
        if (layer.dweight_hh)
            pack_rows<P>(N, n, [&](long k) { return previous(layer, k); }, packed_h, of_n.begin, of_n.end);
        if (layer.dweight_ih)
            pack_rows<P>(N, d, [&](long k) { return layer.x + k * d; }, packed_x, of_d.begin, of_d.end);
        barrier.wait(count);

        const bool gather = convert_a || share.unit_parts > 1;
        const long B0 = share.rows.begin, first = share.units.begin, own = L * share.units.size();
        const long a_row = gather ? items<P>(own) : L * n;
        Places places(layer, share, scratch + number * layer.slot_count * BLOCK, nothing);
        float *dh = blocks + 2 * number * BLOCK, *dc = dh + BLOCK;
        auto parts_of_dh = [&](long t) { return partial + (t & 1) * most * B * partial_row; };
        // dh_{t} as the recurrent product of step t + 1 gives it, without the gradient of the output.
        auto recurrent_dh = [&](long t, long r, long unit) {
            float sum = 0;
            for (long i = 0; i < share.unit_parts; i++) sum += parts_of_dh(t)[(i * B + r) * partial_row + unit];
            return layer.mask ? sum * layer.mask[r * n + unit] : sum;
        };
        for (long t = T - 1; t >= 0; t--) {
            const float* dc_next = carried + (t & 1) * B * n;
            float* dc_prev = carried + ((t + 1) & 1) * B * n;
            for (long r = B0; r < share.rows.end; r++) {
                const long row = (t * B + r) * n;
                auto gradient = [&](int kind, long u) -> float* {
                    const long unit = first + u, units = std::min(BLOCK, share.units.end - unit);
                    if (kind == GRADIENT_C_PREV) return dc_prev + r * n + unit;
                    const float* given = kind == GRADIENT_H ? layer.grad_hs : layer.grad_cs;
                    if (t == T - 1) return const_cast<float*>(given ? given + row + unit : nothing);
                    if (kind == GRADIENT_H) {
                        if (share.unit_parts == 1 && !layer.mask) {
                            float* alone = parts_of_dh(t) + r * partial_row + unit;
                            if (!given) return alone;
                            sum(alone, given + row + unit, dh, units);
                            return dh;
                        }
                        for (long j = 0; j < units; j++)
                            dh[j] = recurrent_dh(t, r, unit + j) + (given ? given[row + unit + j] : 0.0f);
                        return dh;
                    }
                    if (!given) return const_cast<float*>(dc_next) + r * n + unit;
                    sum(dc_next + r * n + unit, given + row + unit, dc, units);
                    return dc;
                };
                places.row(share, t, r, gradient, [&](long units, long) {
                    if (layer.compiled) layer.compiled(places.blocks.data(), units);
                    else interpret(BACKWARD, layer.program, layer.length, places.blocks.data(), units);
                });
            }
            if (t > 0 || layer.dh0) {
                const float* dhp = layer.dhp + (t * B + B0) * L * n;
                const Item* a = reinterpret_cast<const Item*>(dhp);
                if (gather) {
                    Item* rows = a_of_steps + (share.unit_part * B + B0) * own_items;
                    std::vector<float> flat(own);
                    for (long r = 0; r < share.rows.size(); r++) {
                        for (long k = 0; k < L; k++)
                            std::memcpy(flat.data() + k * share.units.size(), dhp + r * L * n + k * n + first,
                                        share.units.size() * sizeof(float));
                        convert<P>(flat.data(), own, rows + r * a_row);
                    }
                    a = rows;
                }
                float* c = parts_of_dh(t - 1) + (share.unit_part * B + B0) * partial_row;
                product<P>(share.rows.size(), partial_row, items<P>(own), a, a_row, 1, mine, items<P>(own), 0, panels,
                           nullptr, 0, c, partial_row);
                if (share.unit_parts > 1) barrier.wait(count);
            }
        }
        for (long r = B0; r < share.rows.end; r++)
            for (long unit = first; unit < share.units.end; unit++) {
                if (layer.dh0) layer.dh0[r * n + unit] = recurrent_dh(-1, r, unit);
                if (layer.dc0) layer.dc0[r * n + unit] = carried[B * n + r * n + unit];
            }
        barrier.wait(count);

        if (layer.dx) {
            const Range rows = of(N, number, count);
            const Item* at = packed_ih;
            float* c = layer.dx + rows.begin * d;
            Item* converted = a_of_x + rows.begin * (own_items + L);
            for (const Run& run : runs) {
                const long depth = items<P>(run.leaves * n), row = convert_a ? depth : run.row;
                const Item* a = reinterpret_cast<const Item*>(run.gradient) + (convert_a ? 0 : rows.begin * run.row);
                if (convert_a) {
                    for (long r = 0; r < rows.size(); r++)
                        convert<P>(run.gradient + (rows.begin + r) * run.row, run.leaves * n, converted + r * row);
                    a = converted;
                }
                product<P>(rows.size(), d, depth, a, row, 1, at, depth, 0, ceil_div(d, PANEL),
                           &run == runs.data() ? nullptr : c, d, c, d);
                at += packed_size<P>(run.leaves * n, d);
            }
        }
        Item* tile_of_a = tiles_of_a + number * GROUPS * SIZE_OF_A;
        if (layer.dweight_hh)
            transposed_product<P>(of(L * n, number, count), L * n, n, N, layer.dhp, packed_h, tile_of_a, layer.dweight_hh);
        if (layer.dweight_ih)
            for (const Run& run : runs)
                transposed_product<P>(of(run.leaves * n, number, count), run.row, d, N, run.gradient, packed_x, tile_of_a,
                                      layer.dweight_ih + run.leaf * n * d);
    });
    return true;
}

}  // namespace archsmith

extern "C" {

// 0, or 1 if there is not enough memory.
int archsmith_forward(const archsmith::Layer* layer) {
#if defined(__AVX512BF16__)
    if (layer->pairs) return archsmith::forward<archsmith::Pairs>(*layer) ? 0 : 1;
#endif
    return archsmith::forward<archsmith::Single>(*layer) ? 0 : 1;
}

int archsmith_backward(const archsmith::Layer* layer) {
#if defined(__AVX512BF16__)
    if (layer->pairs) return archsmith::backward<archsmith::Pairs>(*layer) ? 0 : 1;
#endif
    return archsmith::backward<archsmith::Single>(*layer) ? 0 : 1;
}

// What this build can do: the width of its vectors in floats, and 256 more if it has products in bf16.
int archsmith_abilities() {
    int bf16 = 0;
#if defined(__AVX512BF16__)
    bf16 = 256;
#endif
    return archsmith::WIDTH + bf16;
}
}
