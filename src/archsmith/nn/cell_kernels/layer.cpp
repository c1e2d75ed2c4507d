// One layer of any recurrent cell over a sequence, forward and backward. native.py calls it and has the other half of
// the contract: who allocates what, and the programs of a cell.
#include "backward.h"
#include "forward.h"

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
