// A layer forward: the product of all inputs, then step by step the recurrent product and the elementwise part.
#pragma once
#include "layer.h"

namespace archsmith {

// False if there is not enough memory.
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

}  // namespace archsmith
