// The operations of augmentation policies on the CPU, image after image, in place. native.py calls it and has the other
// half of the contract. Every number is computed as geometry.py and colour.py compute it, in the same order and precision,
// so that bytes are equal to the bit; it must be compiled without fused multiplications and additions.
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "team.h"

static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16, "floats must be computed with as floats");

namespace archsmith {

// As CODES in operations.py has them; MOVED and MIRRORED are flips and crops.
enum Code : int64_t {
    NOTHING, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE, INVERT, SOLARIZE, POSTERIZE, EQUALIZE, AUTOCONTRAST,
    BRIGHTNESS, CONTRAST, COLOR, SHARPNESS, SAMPLE_PAIRING, CUTOUT, MOVED, MIRRORED
};

// Numbers and addresses, all of 8 bytes.
struct Batch {
    int64_t count, channels, height, width;
    int64_t threads, parallel, team_size;
    uint8_t *images;        // [count, channels, height, width]
    const uint8_t *others;  // of that shape too: what SamplePairing mixes in
    const int64_t *code;    // [count]
    const double *magnitude;
    const int64_t *centre;  // [count, 2]: the middle of a cutout, or how far down and right a crop is
    const int64_t *partner; // [count]
    const uint8_t *fill;    // [channels]
};

// One image, with memory for a copy of it.
struct Image {
    uint8_t *data;
    int channels, height, width;
    const uint8_t *fill;
    std::vector<uint8_t> &scratch;
    std::vector<int32_t> &places;

    size_t plane() const { return size_t(height) * width; }
    size_t size() const { return channels * plane(); }
    const uint8_t *copied() const {
        if (scratch.size() < size()) scratch.resize(size());
        std::memcpy(scratch.data(), data, size());
        return scratch.data();
    }
};

// --- which pixel comes from where ---

// out[x] = from[x + shift], outside of the row the fill.
void shift_row(uint8_t *out, const uint8_t *from, int64_t width, int64_t shift, uint8_t fill) {
    const int64_t begin = std::clamp<int64_t>(-shift, 0, width), end = std::clamp<int64_t>(width - shift, begin, width);
    if (begin > 0) std::memset(out, fill, begin);
    if (end > begin) std::memcpy(out + begin, from + begin + shift, end - begin);
    if (width > end) std::memset(out + end, fill, width - end);
}

int32_t fixed(double value) { return static_cast<int32_t>(std::floor(value * 65536.0 + 0.5)); }

void affine(const Image &image, int64_t code, double magnitude) {
    double a = 1, b = 0, c = 0, d = 0, e = 1, f = 0;
    if (code == SHEAR_X) b = magnitude;
    else if (code == SHEAR_Y) d = magnitude;
    else if (code == TRANSLATE_X) c = magnitude;
    else if (code == TRANSLATE_Y) f = magnitude;
    else {
        const double angle = -magnitude * 0.017453292519943295, x = image.width / 2.0, y = image.height / 2.0;
        const double cosine = std::nearbyint(std::cos(angle) * 1e15) / 1e15;
        const double sine = std::nearbyint(std::sin(angle) * 1e15) / 1e15;
        a = e = cosine, b = sine, d = -sine;
        c = (cosine * -x + sine * -y) + x;
        f = (-sine * -x + cosine * -y) + y;
    }
    // 16.16 fixed point, wrapping round as 32 bits do.
    const uint32_t A = fixed(a), B = fixed(b), C = fixed((c + a * 0.5) + b * 0.5);
    const uint32_t D = fixed(d), E = fixed(e), F = fixed((f + d * 0.5) + e * 0.5);
    const int height = image.height, width = image.width, channels = image.channels;
    const uint32_t ONE = 1u << 16;
    if (A == ONE && D == 0) {  // whole rows move
        const uint8_t *from = image.copied();
        for (int y = 0; y < height; y++) {
            const int64_t right = static_cast<int32_t>(B * y + C) >> 16, row = static_cast<int32_t>(E * y + F) >> 16;
            const bool inside = row >= 0 && row < height;
            for (int k = 0; k < channels; k++)
                shift_row(image.data + k * image.plane() + size_t(y) * width,
                          from + k * image.plane() + (inside ? row : 0) * width, width, inside ? right : width,
                          image.fill[k]);
        }
        return;
    }
    // The image with a rim of one pixel of the fill; places outside become places on the rim.
    const int across = width + 2;
    const size_t rimmed = size_t(height + 2) * across;
    if (image.scratch.size() < channels * rimmed) image.scratch.resize(channels * rimmed);
    if (image.places.size() < size_t(width)) image.places.resize(width);
    for (int k = 0; k < channels; k++) {
        uint8_t *plane = image.scratch.data() + k * rimmed;
        const uint8_t *own = image.data + k * image.plane();
        std::memset(plane, image.fill[k], across);
        for (int y = 0; y < height; y++) {
            uint8_t *row = plane + size_t(y + 1) * across;
            row[0] = row[width + 1] = image.fill[k];
            std::memcpy(row + 1, own + size_t(y) * width, width);
        }
        std::memset(plane + rimmed - across, image.fill[k], across);
    }
    int32_t *__restrict places = image.places.data();
    for (int y = 0; y < height; y++) {
        const uint32_t column = B * y + C, row = E * y + F;
        for (int x = 0; x < width; x++) {
            const int32_t xin = static_cast<int32_t>(A * x + column) >> 16, yin = static_cast<int32_t>(D * x + row) >> 16;
            places[x] = (std::clamp(yin, -1, height) + 1) * across + std::clamp(xin, -1, width) + 1;
        }
        for (int k = 0; k < channels; k++) {
            const uint8_t *__restrict from = image.scratch.data() + k * rimmed;
            uint8_t *__restrict to = image.data + k * image.plane() + size_t(y) * width;
            for (int x = 0; x < width; x++) to[x] = from[places[x]];
        }
    }
}

void flip_and_move(const Image &image, bool mirrored, int64_t down, int64_t right) {
    const uint8_t *from = image.copied();
    if (mirrored)
        for (size_t row = 0; row < size_t(image.channels) * image.height; row++)
            std::reverse(image.scratch.data() + row * image.width, image.scratch.data() + (row + 1) * image.width);
    for (int k = 0; k < image.channels; k++)
        for (int64_t y = 0; y < image.height; y++) {
            const bool inside = y + down >= 0 && y + down < image.height;
            shift_row(image.data + k * image.plane() + y * image.width,
                      from + k * image.plane() + (inside ? y + down : 0) * image.width, image.width,
                      inside ? right : image.width, image.fill[k]);
        }
}

void cut_out(const Image &image, int64_t size, int64_t row, int64_t column) {
    const int64_t top = row - size / 2, left = column - size / 2;
    const int64_t y0 = std::clamp<int64_t>(top, 0, image.height), y1 = std::clamp<int64_t>(top + size, 0, image.height);
    const int64_t x0 = std::clamp<int64_t>(left, 0, image.width), x1 = std::clamp<int64_t>(left + size, 0, image.width);
    if (x1 <= x0) return;
    for (int k = 0; k < image.channels; k++)
        for (int64_t y = y0; y < y1; y++)
            std::memset(image.data + k * image.plane() + y * image.width + x0, image.fill[k], x1 - x0);
}

// --- colours ---

void invert(const Image &image) {
    uint8_t *__restrict data = image.data;
    for (size_t i = 0, n = image.size(); i < n; i++) data[i] = ~data[i];
}

void solarize(const Image &image, double threshold) {
    const int least = static_cast<int>(std::ceil(threshold));
    if (least > 255) return;
    uint8_t *__restrict data = image.data;
    const uint8_t from = static_cast<uint8_t>(std::max(least, 0));
    for (size_t i = 0, n = image.size(); i < n; i++) data[i] ^= data[i] >= from ? 255 : 0;
}

void posterize(const Image &image, double bits) {
    const uint8_t mask = static_cast<uint8_t>(256 - static_cast<int>(std::exp2(8 - bits)));
    uint8_t *__restrict data = image.data;
    for (size_t i = 0, n = image.size(); i < n; i++) data[i] &= mask;
}

void by_table(uint8_t *__restrict data, size_t count, const uint8_t *__restrict table) {
    for (size_t i = 0; i < count; i++) data[i] = table[data[i]];
}

void equalize(uint8_t *data, int32_t pixels) {
    int32_t counts[4][256] = {};  // four, so that equal neighbours need not wait for each other
    int32_t i = 0;
    for (; i + 4 <= pixels; i += 4)
        for (int k = 0; k < 4; k++) counts[k][data[i + k]]++;
    for (; i < pixels; i++) counts[0][data[i]]++;
    int32_t below[256], so_far = 0, highest = 0;
    for (int v = 0; v < 256; v++) counts[0][v] += counts[1][v] + counts[2][v] + counts[3][v];
    for (int v = 0; v < 256; v++) {
        below[v] = so_far;
        so_far += counts[0][v];
        if (counts[0][v]) highest = v;
    }
    const int32_t step = below[highest] / 255;
    if (step == 0) return;
    // Quotients of whole numbers: rounding never lifts one to the next whole number.
    const double start = step / 2, divisor = step;
    uint8_t table[256];
    for (int v = 0; v < 256; v++)
        table[v] = static_cast<uint8_t>(std::min(static_cast<int>((below[v] + start) / divisor), 255));
    by_table(data, pixels, table);
}

void autocontrast(uint8_t *data, size_t pixels) {
    uint8_t lowest = 255, highest = 0;
    for (size_t i = 0; i < pixels; i++) {
        lowest = std::min(lowest, data[i]);
        highest = std::max(highest, data[i]);
    }
    if (highest == lowest) return;
    const double scale = 255.0 / (highest - lowest), offset = -static_cast<double>(lowest) * scale;
    uint8_t table[256];
    for (int v = 0; v < 256; v++) {
        const double value = v * scale + offset;
        table[v] = static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0), 255.0)));
    }
    by_table(data, pixels, table);
}

// --- blends: first + weight (second - first), in single precision, cut to bytes ---

inline uint8_t cut(float value) {
    value = value < 0.0f ? 0.0f : value;
    value = value > 255.0f ? 255.0f : value;
    return static_cast<uint8_t>(static_cast<int>(value));
}

inline uint8_t blended(float first, float second, float weight) { return cut((second - first) * weight + first); }

inline int grey(int red, int green, int blue) { return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16; }

void brightness(const Image &image, float weight) {
    uint8_t *__restrict data = image.data;
    for (size_t i = 0, n = image.size(); i < n; i++) data[i] = cut(data[i] * weight);
}

void contrast(const Image &image, float weight) {
    const size_t n = image.plane();
    int64_t total = 0;
    for (size_t begin = 0; begin < n; begin += 65536) {  // so many bytes at most, that 32 bits hold their sum
        const size_t end = std::min(n, begin + 65536);
        const uint8_t *red = image.data, *green = red + n, *blue = green + n;
        int32_t part = 0;
        if (image.channels == 1)
            for (size_t i = begin; i < end; i++) part += red[i];
        else
            for (size_t i = begin; i < end; i++) part += grey(red[i], green[i], blue[i]);
        total += part;
    }
    const int64_t pixels = static_cast<int64_t>(n);
    const float mean = static_cast<float>((2 * total + pixels) / (2 * pixels));
    uint8_t *__restrict data = image.data;
    for (size_t i = 0, all = image.size(); i < all; i++) data[i] = blended(mean, data[i], weight);
}

void colour(const Image &image, float weight) {
    if (image.channels == 1) return;
    const size_t n = image.plane();
    uint8_t *__restrict red = image.data, *__restrict green = red + n, *__restrict blue = red + 2 * n;
    for (size_t i = 0; i < n; i++) {
        const int r = red[i], g = green[i], b = blue[i];
        const float luma = static_cast<float>(grey(r, g, b));
        red[i] = blended(luma, r, weight);
        green[i] = blended(luma, g, weight);
        blue[i] = blended(luma, b, weight);
    }
}

void sharpness(const Image &image, float weight) {
    if (image.height < 3 || image.width < 3) return;
    const uint8_t *copy = image.copied();
    const int64_t width = image.width, n = image.plane();
    for (int k = 0; k < image.channels; k++) {
        const uint8_t *__restrict from = copy + k * n;
        uint8_t *__restrict out = image.data + k * n;
        // As one long row, which is many times faster on small images; the rim is put back after it.
        for (int64_t i = width + 1; i < n - width - 1; i++) {
            const uint16_t around = from[i - width - 1] + from[i - width] + from[i - width + 1] + from[i - 1] + 5 * from[i] +
                                    from[i + 1] + from[i + width - 1] + from[i + width] + from[i + width + 1];
            const uint16_t smooth = static_cast<uint16_t>(around + 6) / 13;  // to the nearest; thirteenths have no ties
            out[i] = blended(smooth, from[i], weight);
        }
        for (int64_t i = width; i < n; i += width) out[i - 1] = from[i - 1], out[i] = from[i];
    }
}

void sample_pairing(const Image &image, const uint8_t *__restrict other, float weight) {
    uint8_t *__restrict data = image.data;
    for (size_t i = 0, n = image.size(); i < n; i++) data[i] = blended(data[i], other[i], weight);
}

void operate(const Batch &batch, int64_t at, const Image &image) {
    const double magnitude = batch.magnitude[at];
    const float weight = static_cast<float>(magnitude);
    const int64_t row = batch.centre[2 * at], column = batch.centre[2 * at + 1];
    switch (batch.code[at]) {
        case SHEAR_X: case SHEAR_Y: case TRANSLATE_X: case TRANSLATE_Y: case ROTATE:
            return affine(image, batch.code[at], magnitude);
        case INVERT: return invert(image);
        case SOLARIZE: return solarize(image, magnitude);
        case POSTERIZE: return posterize(image, magnitude);
        case EQUALIZE:
            for (int k = 0; k < image.channels; k++) equalize(image.data + k * image.plane(), image.plane());
            return;
        case AUTOCONTRAST:
            for (int k = 0; k < image.channels; k++) autocontrast(image.data + k * image.plane(), image.plane());
            return;
        case BRIGHTNESS: return brightness(image, weight);
        case CONTRAST: return contrast(image, weight);
        case COLOR: return colour(image, weight);
        case SHARPNESS: return sharpness(image, weight);
        case SAMPLE_PAIRING: return sample_pairing(image, batch.others + batch.partner[at] * image.size(), weight);
        case CUTOUT: return cut_out(image, static_cast<int64_t>(magnitude), row, column);
        case MOVED: case MIRRORED: return flip_and_move(image, batch.code[at] == MIRRORED, row, column);
    }
}

}  // namespace archsmith

// 0; 1 if there is not enough memory, when some images may be changed; 2 and nothing changed for a partner that is none.
extern "C" int archsmith_augment(const archsmith::Batch *given) {
    using namespace archsmith;
    const Batch &batch = *given;
    for (int64_t i = 0; i < batch.count; i++)
        if (batch.code[i] == SAMPLE_PAIRING && (batch.partner[i] < 0 || batch.partner[i] >= batch.count)) return 2;
    std::atomic<int> failed{0};
    const OpenMP openmp{reinterpret_cast<decltype(OpenMP::parallel)>(batch.parallel),
                        reinterpret_cast<decltype(OpenMP::team_size)>(batch.team_size)};
    const size_t size = size_t(batch.channels) * batch.height * batch.width;
    run_team(static_cast<int>(batch.threads), openmp, [&](int number, int threads) {
        try {
            std::vector<uint8_t> scratch;
            std::vector<int32_t> places;
            const int64_t begin = batch.count * number / threads, end = batch.count * (number + 1) / threads;
            for (int64_t i = begin; i < end; i++)
                operate(batch, i, {batch.images + i * size, static_cast<int>(batch.channels), static_cast<int>(batch.height),
                                   static_cast<int>(batch.width), batch.fill, scratch, places});
        } catch (const std::bad_alloc &) {
            failed = 1;
        }
    });
    return failed;
}
