// Plays a WAV file through a trained network, block by block, as an audio callback would.
//
//   process_wav amp.safetensors input.wav output.wav [BLOCK]
//
// Reports the real-time factor (processing time over playing time) and the slowest block beside its
// deadline.
#include <tidegate/tidegate.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Wav {
  uint32_t rate = 0;
  std::vector<float> samples;  // one channel
};

template <class T>
T number(const std::vector<char>& bytes, size_t at) {  // little-endian, as this machine's
  T value;
  if (at + sizeof value > bytes.size())
    throw std::runtime_error("WAV: expected more bytes, got the end of the file");
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

Wav read_wav(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": expected a file that can be read, got none");
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < 12 || std::memcmp(bytes.data(), "RIFF", 4) != 0 ||
      std::memcmp(&bytes[8], "WAVE", 4) != 0)
    throw std::runtime_error(path + ": expected a WAV file, got something else");
  Wav wav;
  uint16_t format = 0, channels = 0, bits = 0;
  for (size_t at = 12; at + 8 <= bytes.size();) {
    const std::string name(&bytes[at], 4);
    const size_t size = number<uint32_t>(bytes, at + 4), data = at + 8;
    if (name == "fmt ") {
      format = number<uint16_t>(bytes, data), channels = number<uint16_t>(bytes, data + 2);
      wav.rate = number<uint32_t>(bytes, data + 4), bits = number<uint16_t>(bytes, data + 14);
    } else if (name == "data") {
      const bool is_float = format == 3 && bits == 32;
      if (channels != 1 || wav.rate == 0 || !(is_float || (format == 1 && bits == 16)))
        throw std::runtime_error(
            path + ": expected one channel of 16-bit integers or 32-bit floats, got others");
      const size_t width = bits / 8u, count = std::min(size, bytes.size() - data) / width;
      for (size_t i = 0; i < count; ++i)
        wav.samples.push_back(
            is_float ? number<float>(bytes, data + i * width)
                     : static_cast<float>(number<int16_t>(bytes, data + i * width)) / 32768);
    }
    at = data + size + size % 2;
  }
  if (wav.samples.empty()) throw std::runtime_error(path + ": expected some sound, got none");
  return wav;
}

void write_wav(const std::string& path, const Wav& wav) {  // 32-bit floats
  std::ofstream file(path, std::ios::binary);
  const auto put = [&](auto value) {
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto size = static_cast<uint32_t>(wav.samples.size() * sizeof(float));
  file.write("RIFF", 4), put(size + 36), file.write("WAVEfmt ", 8);
  put(uint32_t(16)), put(uint16_t(3)), put(uint16_t(1)), put(wav.rate), put(wav.rate * 4),
      put(uint16_t(4)), put(uint16_t(32));
  file.write("data", 4), put(size),
      file.write(reinterpret_cast<const char*>(wav.samples.data()), size);
  if (!file.flush())
    throw std::runtime_error(path + ": expected a file that can be written, got an error");
}

int run(int argc, char** argv) {
  if (argc < 4) throw std::runtime_error("usage: process_wav MODEL INPUT.wav OUTPUT.wav [BLOCK]");
  const size_t block = argc > 4 ? std::strtoul(argv[4], nullptr, 10) : 64;
  if (block == 0)
    throw std::runtime_error("BLOCK: expected at least 1 sample, got " + std::string(argv[4]));

  const tidegate::Model model = tidegate::Model::load(argv[1]);
  if (model.input_size() != 1 || model.output_size() != 1)
    throw std::runtime_error(std::string(argv[1]) +
                             ": expected a model with one input and one output per step");
  tidegate::Stream stream(model);
  Wav wav = read_wav(argv[2]);

  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  times.reserve(wav.samples.size() / block + 1);
  float out = 0;
  for (size_t first = 0; first < wav.samples.size(); first += block) {
    const auto start = Clock::now();
    for (size_t i = first; i < std::min(first + block, wav.samples.size());
         ++i) {  // what the callback would do
      stream.step(&wav.samples[i], &out);
      wav.samples[i] = out;
    }
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  write_wav(argv[3], wav);

  double total = 0;
  for (double time : times) total += time;
  const double seconds = static_cast<double>(wav.samples.size()) / wav.rate,
               deadline = static_cast<double>(block) / wav.rate;
  std::sort(times.begin(), times.end());
  std::printf("%.1f s of sound in %.3f s: real-time factor %.4f\n", seconds, total,
              total / seconds);
  std::printf("blocks of %zu samples: median %.1f us, slowest %.1f us, deadline %.1f us\n", block,
              times[times.size() / 2] * 1e6, times.back() * 1e6, deadline * 1e6);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
