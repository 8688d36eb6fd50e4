#include "tidegate/model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "activation.hpp"
#include "graph.hpp"

namespace tidegate {
namespace {

std::string to_string(const Dims& dims) {
  std::string text = "(";
  for (size_t i = 0; i < dims.size(); ++i)
    text += (i ? ", " : "") + (dims[i] < 0 ? std::string("any") : std::to_string(dims[i]));
  return text + ")";
}

[[noreturn]] void fail(const std::string& subject, const std::string& expected,
                       const std::string& got) {
  throw Error(subject + ": expected " + expected + ", got " + got);
}

// ---- Building from a file ----------------------------------------------------------------------

// Hands out a file's tensors under the names the format gives them.
template <class T>
class Weights {
 public:
  explicit Weights(const ModelFile& file) : file_(file) {}

  // The tensor as an aligned array, copied only where the file has it elsewhere; valid until the
  // next call but three.
  const T* get(const std::string& name, const Dims& shape) {
    const auto found = file_.tensors.find(name);
    const std::string subject = file_.label + ": tensor '" + name + "'";
    if (found == file_.tensors.end()) fail(subject, "shape " + to_string(shape), "none");
    const FileTensor& tensor = found->second;
    const char* dtype = sizeof(T) == 4 ? "F32" : "F64";
    if (tensor.shape != shape || tensor.dtype != dtype)
      fail(subject, "shape " + to_string(shape) + " and dtype " + dtype,
           to_string(tensor.shape) + " and " + tensor.dtype);
    ++used_;
    if (reinterpret_cast<uintptr_t>(tensor.bytes) % sizeof(T) == 0)
      return reinterpret_cast<const T*>(tensor.bytes);
    Buffer<T>& copy = copies_[next_++ % kCopies];
    copy.resize(tensor.count());
    std::memcpy(copy.data(), tensor.bytes, static_cast<size_t>(tensor.count()) * sizeof(T));
    return copy.data();
  }
  const Dims& shape(const std::string& name) const {
    static const Dims none;
    const auto found = file_.tensors.find(name);
    return found == file_.tensors.end() ? none : found->second.shape;
  }
  size_t used() const { return used_; }

 private:
  static constexpr int kCopies = 3;  // kernel, recurrent_kernel, bias
  const ModelFile& file_;
  Buffer<T> copies_[kCopies];
  int next_ = 0;
  size_t used_ = 0;
};

OutputActivation output_activation(const std::string& name, const std::string& subject) {
  if (name == "softmax") return {OutputActivation::softmax, {}};
  if (name == "log_softmax") return {OutputActivation::log_softmax, {}};
  try {
    return {OutputActivation::elementwise, find_activation(name)};
  } catch (const Error& error) {
    throw Error(subject + ": " + error.what());
  }
}

bool is_recurrent(const std::string& name) {
  return name == "LSTM" || name == "GRU" || name == "SimpleRNN" || name == "DualStateGRU" ||
         name == "CoupledLSTM";
}

template <class T>
GraphLayer<T> build(const LayerEntry& entry, const std::string& prefix, Weights<T>& weights) {
  GraphLayer<T> layer;
  layer.subject = entry.subject;
  const std::string& name = entry.class_name;
  // How many rows a kernel has its tensor says; that they fit what comes in is checked when shapes
  // are followed.
  const auto rows = [&] {
    const Dims& shape = weights.shape(prefix + "kernel");
    return shape.size() == 2 && shape[0] > 0 ? shape[0] : 1;
  };
  if (is_recurrent(name)) {
    layer.kind = LayerKind::recurrent;
    const char* cell = name == "LSTM"                       ? "lstm"
                       : name == "GRU" && entry.reset_after ? "gru"
                       : name == "GRU"                      ? "gru_reset_before"
                       : name == "SimpleRNN"                ? "simple_rnn"
                       : name == "CoupledLSTM"              ? "coupled_lstm"
                                                            : "dual_state_gru";
    const auto all = cells();
    const CellDescription& description = *std::find_if(
        all.begin(), all.end(), [&](const CellDescription& d) { return d.name == cell; });
    const int64_t features = rows(), units = entry.units, columns = description.gates * units;
    const T* kernel = weights.get(prefix + "kernel", {features, columns});
    const T* recurrent_kernel = weights.get(prefix + "recurrent_kernel", {units, columns});
    const T* bias = !entry.use_bias              ? nullptr
                    : description.bias_rows == 2 ? weights.get(prefix + "bias", {2, columns})
                                                 : weights.get(prefix + "bias", {columns});
    const std::string recurrent_activation =
        name == "SimpleRNN" ? "sigmoid" : entry.recurrent_activation;
    try {
      layer.recurrent =
          std::make_unique<Recurrent<T>>(cell, features, units, kernel, recurrent_kernel, bias,
                                         entry.activation, recurrent_activation);
    } catch (const Error& error) {
      throw Error(entry.subject + ": " + error.what());
    }
    layer.return_sequences = entry.return_sequences;
    layer.go_backwards = entry.go_backwards;
    layer.zero_output_for_mask = entry.zero_output_for_mask;
  } else if (name == "Dense") {
    layer.kind = LayerKind::dense;
    const int64_t features = rows();
    const T* kernel = weights.get(prefix + "kernel", {features, entry.units});
    const T* bias = entry.use_bias ? weights.get(prefix + "bias", {entry.units}) : nullptr;
    layer.activation = output_activation(entry.activation, entry.subject);
    layer.dense = std::make_unique<Dense<T>>(features, entry.units, kernel, bias);
  } else if (name == "Embedding") {
    layer.kind = LayerKind::embedding;
    layer.input_dim = entry.input_dim, layer.output_dim = entry.output_dim,
    layer.mask_zero = entry.mask_zero;
    if (sizeof(T) == 4 && entry.input_dim > (1 << 24))
      fail(entry.subject, "input_dim up to 2^24, which float32 counts exactly",
           std::to_string(entry.input_dim));
    const T* table = weights.get(prefix + "embeddings", {entry.input_dim, entry.output_dim});
    layer.table.resize(entry.input_dim * entry.output_dim);
    std::copy_n(table, layer.table.size(), layer.table.data());
  } else if (name == "Masking") {
    layer.kind = LayerKind::masking;
    layer.mask_value = static_cast<T>(entry.mask_value);
  } else if (name == "Activation") {
    layer.kind = LayerKind::activation;
    layer.activation = output_activation(entry.activation, entry.subject);
  } else if (name == "Flatten") {
    layer.kind = LayerKind::flatten;
  } else if (name == "Dropout") {
    layer.kind = LayerKind::activation;  // linear: the identity
  } else if (name == "Bidirectional") {
    layer.kind = LayerKind::bidirectional;
    const LayerEntry &forward = entry.layer[0], &backward = entry.backward_layer[0];
    for (const LayerEntry* child : {&forward, &backward})
      if (!is_recurrent(child->class_name))
        fail(entry.subject, "recurrent layers inside", child->class_name);
    if (forward.go_backwards == backward.go_backwards ||
        forward.return_sequences != backward.return_sequences)
      throw Error(entry.subject +
                  ": expected layers that differ in go_backwards and agree in return_sequences, "
                  "got others");
    const std::pair<const char*, Merge> modes[] = {
        {"concat", Merge::concat}, {"sum", Merge::sum}, {"mul", Merge::mul}, {"ave", Merge::ave}};
    const auto mode = std::find_if(std::begin(modes), std::end(modes),
                                   [&](auto& m) { return entry.merge_mode == m.first; });
    if (mode == std::end(modes))
      fail(entry.subject, "merge_mode concat, sum, mul or ave",
           "'" + entry.merge_mode.substr(0, 60) + "'");
    layer.merge = mode->second;
    layer.return_sequences = forward.return_sequences;
    layer.children.push_back(build(forward, prefix + "forward.", weights));
    layer.children.push_back(build(backward, prefix + "backward.", weights));
  } else {
    layer.kind = LayerKind::time_distributed;
    if (is_recurrent(entry.layer[0].class_name) && entry.layer[0].stateful)
      fail(entry.subject, "a layer without states between calls", "a stateful one");
    layer.children.push_back(build(entry.layer[0], prefix + "layer.", weights));
  }
  return layer;
}

// ---- Shapes ------------------------------------------------------------------------------------
template <class T>
Dims output_dims_of(const GraphLayer<T>& layer, const Dims& in) {
  const auto check = [&](bool fits, const char* expected) {
    if (!fits) fail(layer.subject, expected, "shape " + to_string(in));
  };
  const auto features = [&](int64_t n) {
    if (in.back() != n)
      fail(layer.subject, std::to_string(n) + " features, as its kernel has",
           "shape " + to_string(in));
  };
  Dims out = in;
  switch (layer.kind) {
    case LayerKind::recurrent:
      check(in.size() == 3, "an input (batch, time, features)");
      features(layer.recurrent->features());
      out[2] = layer.recurrent->units();
      if (!layer.return_sequences) out.erase(out.begin() + 1);
      return out;
    case LayerKind::dense:
      check(in.size() >= 2, "an input (batch, ..., features)");
      features(layer.dense->features());
      out.back() = layer.dense->units();
      return out;
    case LayerKind::embedding:
      out.push_back(layer.output_dim);
      return out;
    case LayerKind::masking:
      check(in.size() >= 2, "an input (batch, ..., features)");
      return out;
    case LayerKind::activation:
      check(layer.activation.kind == OutputActivation::elementwise || in.size() >= 2,
            "an input (batch, ..., features)");
      return out;
    case LayerKind::flatten:
      return {in[0], product(in, 1)};
    case LayerKind::bidirectional: {
      out = output_dims_of(layer.children[0], in);
      const Dims backward = output_dims_of(layer.children[1], in);
      if (layer.merge == Merge::concat)
        out.back() += backward.back();
      else if (out != backward)
        fail(layer.subject, "layers of the same units",
             to_string(out) + " and " + to_string(backward));
      return out;
    }
    case LayerKind::time_distributed: {
      check(in.size() >= 3, "an input (batch, time, ...)");
      Dims step(in.begin() + 1, in.end());
      step[0] = product({in[0], in[1]});
      out = output_dims_of(layer.children[0], step);
      out[0] = in[1];
      out.insert(out.begin(), in[0]);
      return out;
    }
  }
  return out;
}

// ---- Sequences ---------------------------------------------------------------------------------

// Which rows of a sequence count: the axes of the array before its last one, or none.
struct Mask {
  size_t axes = 0;
  std::vector<uint8_t> used;
};

template <class T>
void run(const GraphLayer<T>& layer, const T* x, const Dims& in, Mask& mask, T* y, Poll poll);

template <class T>
ForwardCall<T> recurrent_call(const GraphLayer<T>& layer, const T* x, const Dims& in,
                              const Mask& mask, bool zero_output, T* y) {
  ForwardCall<T> call;
  call.layer = layer.recurrent.get();
  call.input.batch = in[0], call.input.time = in[1], call.input.x = x;
  if (mask.axes == 2) call.input.mask = mask.used.data();
  call.input.go_backwards = layer.go_backwards, call.input.zero_output_for_mask = zero_output;
  (layer.return_sequences ? call.output.outputs : call.output.last_output) = y;
  return call;
}

template <class T>
void run_bidirectional(const GraphLayer<T>& layer, const T* x, const Dims& in, const Mask& mask,
                       T* y, Poll poll) {
  const bool sequences = layer.return_sequences;
  const int64_t time = sequences ? in[1] : 1, rows = in[0] * time;
  const int64_t n = layer.children[0].recurrent->units(), m = layer.children[1].recurrent->units();
  Buffer<T> forward(rows * n), backward(rows * m);
  // As Keras: where sequences are returned, masked steps are zero in both.
  Recurrent<T>::forward_both(
      recurrent_call(layer.children[0], x, in, mask, sequences, forward.data()),
      recurrent_call(layer.children[1], x, in, mask, sequences, backward.data()), poll);
  for (int64_t row = 0; row < rows; ++row) {
    const T* a = forward.data() + row * n;
    const T* b =
        backward.data() + (row / time * time + (time - 1 - row % time)) * m;  // the same step
    switch (layer.merge) {
      case Merge::concat:
        std::copy_n(b, m, std::copy_n(a, n, y)), y += n + m;
        break;
      case Merge::sum:
        for (int64_t i = 0; i < n; ++i) *y++ = a[i] + b[i];
        break;
      case Merge::mul:
        for (int64_t i = 0; i < n; ++i) *y++ = a[i] * b[i];
        break;
      case Merge::ave:
        for (int64_t i = 0; i < n; ++i) *y++ = (a[i] + b[i]) / 2;
        break;
    }
  }
}

template <class T>
void run(const GraphLayer<T>& layer, const T* x, const Dims& in, Mask& mask, T* y, Poll poll) {
  const int64_t total = product(in), columns = in.back(), rows = columns ? total / columns : 0;
  switch (layer.kind) {
    case LayerKind::recurrent: {
      const auto call = recurrent_call(layer, x, in, mask, layer.zero_output_for_mask, y);
      layer.recurrent->forward(call.input, call.output, nullptr, poll);
      if (!layer.return_sequences) mask.axes = 0;
      return;
    }
    case LayerKind::bidirectional:
      run_bidirectional(layer, x, in, mask, y, poll);
      if (!layer.return_sequences) mask.axes = 0;
      return;
    case LayerKind::dense:
      layer.dense->forward(x, rows, y);
      if (!layer.activation.is_linear()) apply(layer.activation, y, rows, layer.dense->units(), y);
      return;
    case LayerKind::embedding:
      check_ids(layer, x, total);
      look_up(layer, x, total, y);
      mask.axes = layer.mask_zero ? in.size() : 0;
      if (layer.mask_zero) {
        mask.used.resize(static_cast<size_t>(total));
        for (int64_t i = 0; i < total; ++i) mask.used[i] = x[i] != 0;
      }
      return;
    case LayerKind::masking:
      mask.axes = in.size() - 1;
      mask.used.resize(static_cast<size_t>(rows));
      mask_rows(layer.mask_value, x, rows, columns, y, mask.used.data());
      return;
    case LayerKind::activation:
      apply(layer.activation, x, rows, columns, y);
      return;
    case LayerKind::flatten:
      std::copy_n(x, total, y);
      mask.axes = 0;
      return;
    case LayerKind::time_distributed: {
      Dims step(in.begin() + 1, in.end());
      step[0] = in[0] * in[1];
      // A mask of (batch, time) says nothing about the axes inside a step.
      Mask inner;
      if (mask.axes > 2) inner.axes = mask.axes - 1, inner.used = mask.used;
      run(layer.children[0], x, step, inner, y, poll);
      return;
    }
  }
}

// ---- Loading -----------------------------------------------------------------------------------
template <class T>
std::unique_ptr<Graph<T>> build_graph(const ModelFile& file, const Dims& test_input) {
  auto graph = std::make_unique<Graph<T>>();
  Weights<T> weights(file);
  for (size_t i = 0; i < file.layers.size(); ++i)
    graph->layers.push_back(build<T>(file.layers[i], "layers." + std::to_string(i) + ".", weights));
  if (weights.used() + 2 != file.tensors.size())  // every name was asked for once
    fail(file.label,
         std::to_string(weights.used() + 2) + " tensors for the layers and the test vector",
         std::to_string(file.tensors.size()));
  graph->has_time =
      file.batch_input_shape.size() > 2 || graph->layers[0].kind == LayerKind::embedding;
  graph->step.assign(test_input.begin() + (graph->has_time ? 2 : 1), test_input.end());
  return graph;
}

template <class T>
void replay(const Graph<T>& graph, const ModelFile& file, const Dims& in, const Dims& out) {
  const FileTensor &x = file.tensors.at("test_vector.input"),
                   &y = file.tensors.at("test_vector.output");
  const std::string subject = file.label + ": test_vector";
  if (y.dtype != (sizeof(T) == 4 ? "F32" : "F64") || y.shape != out)
    fail(subject, "an output of shape " + to_string(out) + " and the model's dtype",
         to_string(y.shape) + " and " + y.dtype);
  // A small file must not make large arrays.
  const int64_t most = static_cast<int64_t>(file.size) * 16 + (64 << 20);
  if (graph.largest(in) > most / static_cast<int64_t>(sizeof(T)))
    fail(subject, "an input small enough to replay", to_string(in));
  Buffer<T> input(x.count()), expected(y.count()), got(y.count());
  if (x.dtype == "I32") {
    for (int64_t i = 0; i < x.count(); ++i) {
      int32_t id;
      std::memcpy(&id, x.bytes + 4 * i, 4);
      input.data()[i] = static_cast<T>(id);
    }
  } else {
    std::memcpy(input.data(), x.bytes, static_cast<size_t>(x.count()) * sizeof(T));
  }
  std::memcpy(expected.data(), y.bytes, static_cast<size_t>(y.count()) * sizeof(T));
  graph.predict(input.data(), in, got.data(), {});
  double most_error = 0, scale = 1;
  for (int64_t i = 0; i < y.count(); ++i) {
    const double e = expected.data()[i], g = got.data()[i];
    if (e == g || (std::isnan(e) && std::isnan(g))) continue;
    const double error = std::abs(g - e);
    most_error = std::max(most_error, std::isnan(error) ? INFINITY : error);
  }
  for (int64_t i = 0; i < y.count(); ++i)
    if (std::isfinite(expected.data()[i]))
      scale = std::max(scale, std::abs(static_cast<double>(expected.data()[i])));
  if (!(most_error <= file.tolerance * scale))
    throw Error(subject + ": expected its output within " + std::to_string(file.tolerance) +
                ", got an error of " + std::to_string(most_error / scale) +
                "; the file is damaged");
}

template <class T>
void fill(Model::Impl& impl, std::unique_ptr<Graph<T>>& slot, const ModelFile& file,
          const Dims& in) {
  slot = build_graph<T>(file, in);
  Dims out;
  try {
    out = slot->output_dims(in);
  } catch (const Error& error) {
    throw Error(file.label + ": " + error.what());
  }
  replay(*slot, file, in, out);
  // The time axis comes out again unless a layer takes the last step or flattens it away.
  bool time = slot->has_time;
  for (const auto& layer : slot->layers)
    if (layer.kind == LayerKind::flatten)
      time = false;
    else if ((layer.kind == LayerKind::recurrent || layer.kind == LayerKind::bidirectional) &&
             !layer.return_sequences)
      time = false;
  impl.returns_sequences = time;
  impl.input_size = product(slot->step);
  impl.output_size = product(out, time ? 2 : 1);
}

// The file in memory while it is read.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(path, "a file that can be read", std::strerror(errno));
    struct stat status;
    const bool known = ::fstat(file, &status) == 0;
    if (!known || !S_ISREG(status.st_mode) || status.st_size <= 0) {
      ::close(file);
      fail(path, "a file with contents",
           !known                    ? std::strerror(errno)
           : S_ISREG(status.st_mode) ? "an empty one"
                                     : "something else");
    }
    size_ = static_cast<size_t>(status.st_size);
    data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    const int why = errno;
    ::close(file);
    if (data_ == MAP_FAILED)
      fail(path, "a file that can be mapped into memory", std::strerror(why));
  }
  ~Mapping() { ::munmap(data_, size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  const void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* data_;
  size_t size_;
};

std::shared_ptr<const Model::Impl> load_impl(const void* data, size_t size,
                                             const std::string& label) {
  const ModelFile file = read_model_file(static_cast<const unsigned char*>(data), size, label);
  const FileTensor& x = file.tensors.at("test_vector.input");
  const Dims &in = x.shape, &declared = file.batch_input_shape;
  const bool ids = file.layers[0].class_name == "Embedding";
  const char* dtype = ids ? "I32" : file.is_double ? "F64" : "F32";
  bool fits = in.size() == declared.size() && x.dtype == dtype;
  // Fewer rows and steps than declared are enough for a test.
  const size_t free = ids || in.size() > 2 ? 2 : 1;
  for (size_t i = 0; fits && i < in.size(); ++i)
    fits = in[i] > 0 && (i < free || declared[i] < 0 || in[i] == declared[i]);
  if (!fits)
    fail(label + ": test_vector", "an input like " + to_string(declared) + " of dtype " + dtype,
         to_string(in) + " of " + x.dtype);
  auto impl = std::make_shared<Model::Impl>();
  if (file.is_double)
    fill(*impl, impl->twice, file, in);
  else
    fill(*impl, impl->single, file, in);
  return impl;
}

template <class T>
void check_arguments(const Graph<T>& graph, int64_t batch, int64_t timesteps) {
  if (batch < 0) fail("predict batch", "a number from 0", std::to_string(batch));
  if (timesteps < 1 || (!graph.has_time && timesteps != 1))
    fail("predict timesteps",
         graph.has_time ? "a number from 1" : "1, because the inputs have no time axis",
         std::to_string(timesteps));
}

template <class T, class Other>
void predict_as(const Model::Impl& impl, const Other* input, int64_t batch, int64_t timesteps,
                Other* output, Poll poll) {
  const Graph<T>& graph = *impl.graph<T>();
  check_arguments(graph, batch, timesteps);
  const Dims in = graph.input_dims(batch, timesteps);
  const int64_t results = product(graph.output_dims(in));
  if (batch == 0) return;
  if constexpr (std::is_same_v<T, Other>) {
    graph.predict(input, in, output, poll);
  } else {
    Buffer<T> x(product(in)), y(results);
    std::copy_n(input, x.size(), x.data());
    graph.predict(x.data(), in, y.data(), poll);
    std::copy_n(y.data(), results, output);
  }
}

}  // namespace

int64_t product(const Dims& dims, size_t first) {
  int64_t n = 1;
  for (size_t i = first; i < dims.size(); ++i)
    if (__builtin_mul_overflow(n, dims[i], &n))
      fail("shape", "sizes whose product fits 64 bits", to_string(dims));
  return n;
}

template <class T>
void apply(const OutputActivation& activation, const T* x, int64_t rows, int64_t columns,
           T* y) noexcept {
  switch (activation.kind) {
    case OutputActivation::softmax:
      return softmax(x, rows, columns, y);
    case OutputActivation::log_softmax:
      return log_softmax(x, rows, columns, y);
    case OutputActivation::elementwise:
      break;
  }
  if (!activation.is_linear())
    activate(activation.function, x, rows * columns, y);
  else if (x != y)
    std::copy_n(x, rows * columns, y);
}

template <class T>
void look_up(const GraphLayer<T>& embedding, const T* ids, int64_t count, T* y) noexcept {
  for (int64_t i = 0; i < count; ++i, y += embedding.output_dim) {
    if (is_id(embedding, ids[i]))
      std::copy_n(embedding.table.data() + static_cast<int64_t>(ids[i]) * embedding.output_dim,
                  embedding.output_dim, y);
    else
      std::fill_n(y, embedding.output_dim, T(0));
  }
}

template <class T>
void check_ids(const GraphLayer<T>& embedding, const T* ids, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!is_id(embedding, ids[i]))
      fail(embedding.subject, "ids from 0 to " + std::to_string(embedding.input_dim - 1),
           std::to_string(ids[i]));
}

template <class T>
void mask_rows(T mask_value, const T* x, int64_t rows, int64_t columns, T* y,
               uint8_t* used) noexcept {
  for (int64_t row = 0; row < rows; ++row, x += columns, y += columns) {
    used[row] = std::any_of(x, x + columns, [&](T v) { return v != mask_value; });
    const T factor = static_cast<T>(used[row]);
    for (int64_t i = 0; i < columns; ++i) y[i] = x[i] * factor;
  }
}

template <class T>
Dims Graph<T>::input_dims(int64_t batch, int64_t timesteps) const {
  Dims dims = step;
  if (has_time) dims.insert(dims.begin(), timesteps);
  dims.insert(dims.begin(), batch);
  return dims;
}

template <class T>
Dims Graph<T>::output_dims(const Dims& input) const {
  Dims dims = input;
  for (const auto& layer : layers) dims = output_dims_of(layer, dims);
  return dims;
}

template <class T>
int64_t Graph<T>::largest(const Dims& input) const {
  Dims dims = input;
  int64_t most = product(dims);
  for (const auto& layer : layers)
    most = std::max(most, product(dims = output_dims_of(layer, dims)));
  return most;
}

template <class T>
void Graph<T>::predict(const T* input, const Dims& dims, T* output, Poll poll) const {
  Buffer<T> between[2];
  if (layers.size() > 1) {
    const int64_t most = largest(dims);
    between[0].resize(most);
    if (layers.size() > 2) between[1].resize(most);
  }
  Mask mask;
  Dims in = dims;
  const T* x = input;
  for (size_t i = 0; i < layers.size(); ++i) {
    T* y = i + 1 == layers.size() ? output : between[i % 2].data();
    run(layers[i], x, in, mask, y, poll);
    in = output_dims_of(layers[i], in);
    x = y;
  }
}

Model Model::load(const std::string& path) {
  const Mapping file(path);
  return Model(load_impl(file.data(), file.size(), path));
}
Model Model::load(const void* data, size_t size) { return Model(load_impl(data, size, "model")); }

bool Model::is_double() const noexcept { return impl_->twice != nullptr; }
int64_t Model::input_size() const noexcept { return impl_->input_size; }
int64_t Model::output_size() const noexcept { return impl_->output_size; }
bool Model::returns_sequences() const noexcept { return impl_->returns_sequences; }

void Model::predict(const float* input, int64_t batch, int64_t timesteps, float* output,
                    Poll poll) const {
  if (impl_->single)
    predict_as<float>(*impl_, input, batch, timesteps, output, poll);
  else
    predict_as<double>(*impl_, input, batch, timesteps, output, poll);
}
void Model::predict(const double* input, int64_t batch, int64_t timesteps, double* output,
                    Poll poll) const {
  if (impl_->twice)
    predict_as<double>(*impl_, input, batch, timesteps, output, poll);
  else
    predict_as<float>(*impl_, input, batch, timesteps, output, poll);
}

#define TIDEGATE_INSTANTIATE(T)                                                             \
  template struct Graph<T>;                                                                 \
  template void apply<T>(const OutputActivation&, const T*, int64_t, int64_t, T*) noexcept; \
  template void look_up<T>(const GraphLayer<T>&, const T*, int64_t, T*) noexcept;           \
  template void check_ids<T>(const GraphLayer<T>&, const T*, int64_t);                      \
  template void mask_rows<T>(T, const T*, int64_t, int64_t, T*, uint8_t*) noexcept;
TIDEGATE_INSTANTIATE(float)
TIDEGATE_INSTANTIATE(double)
#undef TIDEGATE_INSTANTIATE

}  // namespace tidegate
