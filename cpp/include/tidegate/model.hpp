// A model from a deployment file (.safetensors, written by `model.save` in Python;
// docs/file-format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "tidegate/error.hpp"
#include "tidegate/layers.hpp"

namespace tidegate {

// A stack of layers with its weights packed for this CPU. Immutable, so any number of threads may
// use one at a time; a copy is another handle of the same weights.
class TIDEGATE_API Model {
 public:
  // Reads the file, memory-mapped (nobody may shorten it meanwhile), and replays the test vector
  // that it carries. Throws Error where the file is not to be had, damaged or of another version,
  // and where the test vector does not come out.
  static Model load(const std::string& path);
  // The same from memory, which may go afterwards.
  static Model load(const void* data, size_t size);

  bool is_double() const noexcept;      // float64 inside; calls with the other type are converted
  int64_t input_size() const noexcept;  // numbers per step in (an Embedding takes ids, as numbers)
  int64_t output_size()
      const noexcept;  // numbers out, per step if returns_sequences(), else per sequence
  bool returns_sequences() const noexcept;

  // input (batch, timesteps, input_size) -> output (batch, timesteps, output_size), or (batch,
  // output_size) unless returns_sequences(). A model whose inputs have no time axis takes timesteps
  // = 1. Uses all threads. Every call starts from zero states, with stateful layers too: who wants
  // to go on uses a Stream. Throws Error on sizes that do not fit and ids out of range,
  // Interrupted.
  void predict(const float* input, int64_t batch, int64_t timesteps, float* output,
               Poll poll = {}) const;
  void predict(const double* input, int64_t batch, int64_t timesteps, double* output,
               Poll poll = {}) const;

  struct Impl;

 private:
  friend class Stream;
  friend class StreamPool;
  explicit Model(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tidegate
