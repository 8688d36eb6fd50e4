// libFuzzer target: whatever the bytes are, loading them gives a model or a tidegate::Error, and a
// model steps.
//
//   fuzz_load -max_total_time=60 corpus/
//
// The file's header is JSON with JSON inside, so plain mutation seldom gets past it. The mutator
// therefore also swaps whole words of the format and keeps the header's length true.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "model_writer.hpp"
#include "tidegate/tidegate.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const tidegate::Model model = tidegate::Model::load(data, size);
    tidegate::Stream stream(model, 2);
    std::vector<float> x(static_cast<size_t>(2 * model.input_size()), 0.5f),
        y(static_cast<size_t>(2 * stream.output_size()));
    stream.step(x.data(), y.data());
  } catch (const tidegate::Error&) {
  }
  return 0;
}

namespace {

const char* const kWords[] = {"LSTM",
                              "GRU",
                              "SimpleRNN",
                              "DualStateGRU",
                              "CoupledLSTM",
                              "Dense",
                              "Embedding",
                              "Masking",
                              "Activation",
                              "Dropout",
                              "Flatten",
                              "Bidirectional",
                              "TimeDistributed",
                              "true",
                              "false",
                              "null",
                              "0",
                              "1",
                              "2",
                              "3",
                              "-1",
                              "4294967296",
                              "9223372036854775807",
                              "18446744073709551615",
                              "1e308",
                              "units",
                              "layer",
                              "softmax",
                              "relu",
                              "tanh",
                              "concat",
                              "F32",
                              "F64",
                              "I32",
                              "float64",
                              "[]",
                              "{}",
                              "kernel",
                              "bias",
                              "test_vector.input",
                              "go_backwards",
                              "\\\"layer\\\":{}",
                              "\\\"mask_value\\\":0",
                              ","};

std::string seed(unsigned number) {
  const char* const names[] = {"LSTM", "GRU", "SimpleRNN", "DualStateGRU", "CoupledLSTM", "Dense"};
  std::vector<writer::Layer> layers;
  for (unsigned i = 0; i <= number % 3; ++i, number /= 6)
    layers.push_back({names[number % 6], 1 + static_cast<int64_t>(number % 4)});
  return writer::stack(layers, 2);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned number) {
  std::minstd_rand random(number + 1);
  if (size < 16 || random() % 64 == 0) {
    const std::string file = seed(static_cast<unsigned>(random()));
    size = std::min(max_size, file.size());
    std::memcpy(data, file.data(), size);
  }
  if (random() % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | data[i];
  if (header > size - 8) return LLVMFuzzerMutate(data, size, max_size);
  std::string text(reinterpret_cast<const char*>(data) + 8, header),
      rest(reinterpret_cast<const char*>(data) + 8 + header, size - 8 - header);
  const auto is_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  };
  for (unsigned changes = 1 + random() % 3; changes > 0; --changes) {
    if (text.empty()) break;
    size_t first = random() % text.size();
    while (first > 0 && is_word(text[first - 1])) --first;
    size_t last = first;
    while (last < text.size() && is_word(text[last])) ++last;
    switch (random() % 4) {
      case 0:
        text.erase(first, last - first);
        break;
      case 1:
        text.insert(last, text, first, random() % 64);
        break;
      default:
        text.replace(first, last - first, kWords[random() % (sizeof kWords / sizeof *kWords)]);
        break;
    }
  }
  if (random() % 8 == 0) rest.resize(random() % (rest.size() + 64));
  if (8 + text.size() + rest.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  for (int i = 0; i < 8; ++i)
    data[i] = static_cast<uint8_t>(static_cast<uint64_t>(text.size()) >> (8 * i));
  std::memcpy(data + 8, text.data(), text.size());
  std::memcpy(data + 8 + text.size(), rest.data(), rest.size());
  return 8 + text.size() + rest.size();
}
