// A host of an effect: a WAV file through the exported amplifier, block by block.
//
//     host IN.wav OUT.wav [BLOCK]
//
// IN is mono, of 16 bits. Prints how much faster than real time it was, and the slowest block.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "amp.h"

namespace {

struct Wave {
    std::vector<unsigned char> head; // what stands before the samples
    std::vector<float> samples;
    unsigned rate = 0;
};

unsigned number(const std::vector<unsigned char> &bytes, size_t at, int count)
{
    unsigned found = 0;
    for (int i = count - 1; i >= 0; --i) found = found << 8 | bytes[at + i];
    return found;
}

bool read(const char *path, Wave &wave)
{
    std::FILE *file = std::fopen(path, "rb");
    if (!file) return false;
    std::vector<unsigned char> bytes;
    unsigned char some[4096];
    for (size_t n; (n = std::fread(some, 1, sizeof some, file)) > 0;)
        bytes.insert(bytes.end(), some, some + n);
    std::fclose(file);
    if (bytes.size() < 44 || std::memcmp(bytes.data(), "RIFF", 4)) return false;
    size_t at = 12;
    while (at + 8 <= bytes.size()) {
        const size_t size = number(bytes, at + 4, 4), begin = at + 8;
        if (size > bytes.size() - begin) return false;
        if (!std::memcmp(&bytes[at], "fmt ", 4)) {
            if (size < 16 || number(bytes, begin, 2) != 1) return false;
            if (number(bytes, begin + 2, 2) != 1 || number(bytes, begin + 14, 2) != 16) return false;
            wave.rate = number(bytes, begin + 4, 4);
        }
        if (!std::memcmp(&bytes[at], "data", 4)) {
            wave.head.assign(bytes.begin(), bytes.begin() + static_cast<long>(begin));
            for (size_t i = 0; i + 2 <= size; i += 2)
                wave.samples.push_back(static_cast<int16_t>(number(bytes, begin + i, 2)) / 32768.0f);
            return wave.rate > 0;
        }
        at = begin + size + (size & 1);
    }
    return false;
}

bool write(const char *path, const Wave &wave)
{
    std::FILE *file = std::fopen(path, "wb");
    if (!file) return false;
    bool good = std::fwrite(wave.head.data(), 1, wave.head.size(), file) == wave.head.size();
    for (const float y : wave.samples) {
        const float cut = y > 1 ? 1 : y < -1 ? -1 : y;
        const int16_t sample = static_cast<int16_t>(std::lrint(cut * 32767));
        const unsigned char bytes[] = {static_cast<unsigned char>(sample & 255),
                                       static_cast<unsigned char>(sample >> 8 & 255)};
        good &= std::fwrite(bytes, 1, 2, file) == 2;
    }
    return std::fclose(file) == 0 && good;
}

} // namespace

int main(int count, char **words)
{
    const int block = count > 3 ? std::atoi(words[3]) : 64;
    Wave wave;
    if (count < 3 || block < 1 || !read(words[1], wave)) {
        std::fprintf(stderr, "host IN.wav OUT.wav [BLOCK]: IN is mono, 16 bits\n");
        return 2;
    }
    static amp_state state; // a plugin has one for each channel
    amp_init(&state);
    std::vector<float> in(static_cast<size_t>(block)), out(static_cast<size_t>(block));
    double whole = 0, worst = 0;
    for (size_t from = 0; from < wave.samples.size(); from += in.size()) {
        const size_t n = wave.samples.size() - from < in.size() ? wave.samples.size() - from : in.size();
        std::memcpy(in.data(), &wave.samples[from], n * sizeof(float));
        const auto begin = std::chrono::steady_clock::now();
        amp_block(&state, in.data(), out.data(), static_cast<int>(n)); // all that an audio thread does
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        whole += took.count();
        worst = took.count() > worst ? took.count() : worst;
        std::memcpy(&wave.samples[from], out.data(), n * sizeof(float));
    }
    if (!write(words[2], wave)) {
        std::fprintf(stderr, "%s can't be written\n", words[2]);
        return 1;
    }
    const double seconds = static_cast<double>(wave.samples.size()) / wave.rate;
    std::printf("%.2f s of sound: %.0f times faster than real time; the slowest block of %d took %.1f us of %.0f\n",
                seconds, seconds / whole, block, worst * 1e6, block * 1e6 / wave.rate);
    return 0;
}
