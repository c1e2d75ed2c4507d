// A layer backward: step by step the elementwise part and dh_{t-1}, then the gradients of inputs and weights at once.
#pragma once
#include "layer.h"

namespace archsmith {

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

// False if there is not enough memory.
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
                if (gather && own) {
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
