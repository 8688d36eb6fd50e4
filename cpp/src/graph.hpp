// A model's layers as objects of the engine, and running them over whole sequences.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernel_api.hpp"
#include "memory.hpp"
#include "model_file.hpp"
#include "tidegate/model.hpp"

namespace tidegate {

using Dims = std::vector<int64_t>;                    // with the batch axis
int64_t product(const Dims& dims, size_t first = 0);  // throws Error where it does not fit

enum class LayerKind {
  recurrent,
  dense,
  embedding,
  masking,
  activation,
  flatten,
  bidirectional,
  time_distributed
};
enum class Merge { concat, sum, mul, ave };

// An elementwise activation of the engine, or softmax or log_softmax over the last axis.
struct OutputActivation {
  enum Kind { elementwise, softmax, log_softmax } kind = elementwise;
  Activation function = Activation::linear;
  bool is_linear() const { return kind == elementwise && function == Activation::linear; }
};
template <class T>
void apply(const OutputActivation& activation, const T* x, int64_t rows, int64_t columns,
           T* y) noexcept;

// One layer, of its kind's fields only. Dropout is the identity and leaves none behind.
template <class T>
struct GraphLayer {
  LayerKind kind;
  std::string subject;  // for errors
  std::unique_ptr<Recurrent<T>> recurrent;
  bool return_sequences = false, go_backwards = false, zero_output_for_mask = false;
  std::unique_ptr<Dense<T>> dense;
  OutputActivation activation;  // of a Dense too
  Buffer<T> table;              // (input_dim, output_dim)
  int64_t input_dim = 0, output_dim = 0;
  bool mask_zero = false;
  T mask_value = 0;
  Merge merge = Merge::concat;
  std::vector<GraphLayer> children;
};

// Rows of a table by numbers that hold ids; those out of range give zeros.
template <class T>
void look_up(const GraphLayer<T>& embedding, const T* ids, int64_t count, T* y) noexcept;
template <class T, class Number>
bool is_id(const GraphLayer<T>& embedding, Number id) noexcept {
  return id > Number(-1) && id < static_cast<Number>(embedding.input_dim);
}
template <class T>
void check_ids(const GraphLayer<T>& embedding, const T* ids, int64_t count);  // throws Error
// y = x where a row differs from the mask value somewhere, else zeros; used[row] tells.
template <class T>
void mask_rows(T mask_value, const T* x, int64_t rows, int64_t columns, T* y,
               uint8_t* used) noexcept;

template <class T>
struct Graph {
  std::vector<GraphLayer<T>> layers;
  bool has_time;  // the inputs have a time axis
  Dims step;      // what comes in per step and row: the axes behind batch and time

  Dims input_dims(int64_t batch, int64_t timesteps) const;
  Dims output_dims(const Dims& input) const;  // throws Error where the layers do not fit it
  int64_t largest(const Dims& input) const;   // elements of the largest array between two layers
  void predict(const T* input, const Dims& dims, T* output, Poll poll) const;
};

struct Model::Impl {
  std::unique_ptr<Graph<float>> single;
  std::unique_ptr<Graph<double>> twice;  // one of the two
  int64_t input_size, output_size;
  bool returns_sequences;
  template <class T>
  const Graph<T>* graph() const {
    if constexpr (sizeof(T) == sizeof(float))
      return single.get();
    else
      return twice.get();
  }
};

}  // namespace tidegate
