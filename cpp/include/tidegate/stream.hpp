// One time step after another: for audio callbacks, sensor ticks, servers.
#pragma once

#include <cstdint>
#include <memory>

#include "tidegate/model.hpp"

namespace tidegate {

// A model and the states of `batch` sequences side by side. step() gives, bit for bit, what
// Model::predict would give for that step. All memory is taken and touched in the constructor;
// step(), reset() and the states allocate nothing, take no lock and make no system call. A Stream
// keeps its model's weights alive; copying it copies its states.
//
// The return_sequences of the last recurrent layer does not matter: a stream answers at every step.
// Throws Error for what cannot run step by step: Bidirectional, TimeDistributed, go_backwards,
// Flatten over time. One thread at a time may use a Stream.
class TIDEGATE_API Stream {
 public:
  explicit Stream(const Model& model, int64_t batch = 1);
  ~Stream();
  Stream(const Stream& other);
  Stream(Stream&& other) noexcept;
  Stream& operator=(const Stream& other);
  Stream& operator=(Stream&& other) noexcept;

  // input (batch, input_size) -> output (batch, output_size), which must not overlap. The type
  // other than the model's is converted. An id that its Embedding does not have counts as a vector
  // of zeros.
  void step(const float* input, float* output) noexcept TIDEGATE_NONBLOCKING;
  void step(const double* input, double* output) noexcept TIDEGATE_NONBLOCKING;
  // Whether the model's Embedding, if it begins with one, has all ids of an input (batch,
  // input_size).
  bool knows(const float* input) const noexcept;
  bool knows(const double* input) const noexcept;

  void reset() noexcept TIDEGATE_NONBLOCKING;
  void reset(int64_t row) noexcept TIDEGATE_NONBLOCKING;  // row < batch

  int64_t batch() const noexcept;
  int64_t input_size() const noexcept;
  int64_t output_size() const noexcept;
  bool is_double() const noexcept;

  // The states: `layer` counts recurrent layers, `state` those of its cell (h first); value is
  // (batch, state_size).
  int layers() const noexcept;
  int states(int layer) const noexcept;
  int64_t state_size(int layer) const noexcept;
  void get_state(int layer, int state, float* value) const noexcept TIDEGATE_NONBLOCKING;
  void get_state(int layer, int state, double* value) const noexcept TIDEGATE_NONBLOCKING;
  void set_state(int layer, int state, const float* value) noexcept TIDEGATE_NONBLOCKING;
  void set_state(int layer, int state, const double* value) noexcept TIDEGATE_NONBLOCKING;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// Up to `capacity` independent streams of one model that step in groups: whichever are ready go
// through the layers as one batch, on all threads. Each is, bit for bit, as if it were alone.
// Memory is taken in the constructor and, where more threads are set later, at the next step. One
// thread at a time may use a pool. Throws Error as Stream does.
class TIDEGATE_API StreamPool {
 public:
  StreamPool(const Model& model, int64_t capacity);
  ~StreamPool();
  StreamPool(StreamPool&& other) noexcept;
  StreamPool& operator=(StreamPool&& other) noexcept;

  int64_t open();  // the id of a new stream, from 0 up to capacity; throws Error when all are open
  void close(int64_t id);
  // input (count, input_size) -> output (count, output_size), row i for stream ids[i]. All of these
  // throw Error, before anything changes, for an id that is not open or comes twice.
  void step(const int64_t* ids, int64_t count, const float* input, float* output);
  void step(const int64_t* ids, int64_t count, const double* input, double* output);
  void reset(const int64_t* ids, int64_t count);

  int64_t capacity() const noexcept;
  int64_t size() const noexcept;  // how many are open
  int64_t input_size() const noexcept;
  int64_t output_size() const noexcept;
  bool is_double() const noexcept;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate
