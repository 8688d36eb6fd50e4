#include "tidegate/stream.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "graph.hpp"
#include "team.hpp"

namespace tidegate {
namespace {

// Rows that go through the layers together: few enough to stay in the cache from layer to layer,
// enough to read each weight for many rows.
constexpr int64_t kBlockRows = 96;

[[noreturn]] void fail(const std::string& subject, const std::string& expected,
                       const std::string& got) {
  throw Error(subject + ": expected " + expected + ", got " + got);
}

// One layer of a step, from (rows, ..., columns) to (rows, ..., out columns).
template <class T>
struct Operation {
  const GraphLayer<T>* layer;
  int64_t rows;  // rows of the product per row of the stream: 1, more where a step is an array
  int64_t columns;
  int64_t out;    // numbers out per row of the stream
  int recurrent;  // number among the recurrent layers, or -1
  bool masked;    // sets the mask of a step, or is a recurrent layer under one
};

// A model's layers as a list of operations without a time axis.
template <class T>
struct Program {
  std::vector<Operation<T>> operations;
  std::vector<const Recurrent<T>*> recurrent;
  int64_t input_size, output_size;
  bool masks = false;                        // some step may be masked
  const GraphLayer<T>* embedding = nullptr;  // the first layer, if it is one

  explicit Program(const Graph<T>& graph) {
    bool timed = graph.has_time, masked = false;
    Dims dims = graph.step;  // per row
    input_size = product(dims);
    for (const auto& layer : graph.layers) {
      const int64_t columns = dims.empty() ? 1 : dims.back();
      int index = -1;
      bool mask = false;
      switch (layer.kind) {
        case LayerKind::recurrent:
          if (layer.go_backwards)
            fail(layer.subject, "steps in the order of time for a stream", "go_backwards");
          index = static_cast<int>(recurrent.size());
          recurrent.push_back(layer.recurrent.get());
          mask = masked;
          dims = {layer.recurrent->units()};
          break;
        case LayerKind::dense:
          dims.back() = layer.dense->units();
          break;
        case LayerKind::embedding:
          masked = mask = layer.mask_zero && dims.empty();
          dims.push_back(layer.output_dim);
          break;
        case LayerKind::masking:
          masked = mask = timed && dims.size() == 1;
          break;
        case LayerKind::activation:
          break;
        case LayerKind::flatten:
          if (timed)
            fail(layer.subject, "layers that work step by step for a stream",
                 "one that needs all steps");
          dims = {product(dims)};
          continue;
        case LayerKind::bidirectional:
          fail(layer.subject, "layers that run forward in time for a stream", "Bidirectional");
        case LayerKind::time_distributed:
          fail(layer.subject, "layers of single steps for a stream", "TimeDistributed");
      }
      if (layer.kind == LayerKind::recurrent && !layer.return_sequences) timed = false;
      if (layer.kind == LayerKind::activation && layer.activation.is_linear()) continue;
      masks = masks || masked;
      const int64_t in = operations.empty() ? input_size : operations.back().out;
      operations.push_back({&layer, in / columns, columns, product(dims), index, mask});
    }
    output_size = operations.empty() ? input_size : operations.back().out;
    if (!operations.empty() && operations[0].layer->kind == LayerKind::embedding)
      embedding = operations[0].layer;
  }

  int states(int layer) const { return recurrent[layer]->cell().states; }
};

// The states of some rows, and what masked steps repeat: pointers to (rows, units) for each
// recurrent layer.
template <class T>
struct States {
  T* state[kMaxStates];
  T* previous;  // the last output, under a mask
};

// Work space of one thread for up to `most` rows.
template <class T>
class Worker {
 public:
  Worker(const Program<T>& program, int64_t most) : program_(program), most_(most) {
    for (size_t i = 0; i + 1 < program.operations.size(); ++i)
      results_.push_back(zeros(most * program.operations[i].out));
    int64_t scratch = 1, kept = 1;
    for (const Recurrent<T>* layer : program.recurrent) {
      scratch = std::max(scratch, layer->step_scratch(most));
      kept = std::max(kept, (kMaxStates + 1) * most * layer->units());
    }
    scratch_ = zeros(scratch);
    if (program.masks) kept_ = zeros(kept), used_.assign(static_cast<size_t>(most), 1);
  }

  static Buffer<T> zeros(int64_t size) {
    Buffer<T> buffer(size);
    if (size > 0) std::memset(buffer.data(), 0, static_cast<size_t>(size) * sizeof(T));
    return buffer;
  }

  // states[i] belongs to recurrent layer i. With one row, state[0] is the memory of Recurrent::step
  // instead.
  template <bool kSingle>
  void run(const T* input, int64_t rows, const States<T>* states, T* output) noexcept {
    const T* x = input;
    const size_t count = program_.operations.size();
    if (count == 0) std::copy_n(input, rows * program_.input_size, output);
    for (size_t i = 0; i < count; ++i) {
      const Operation<T>& op = program_.operations[i];
      T* y = i + 1 == count ? output : results_[i].data();
      const GraphLayer<T>& layer = *op.layer;
      const int64_t n = kSingle ? op.rows : rows * op.rows;
      switch (layer.kind) {
        case LayerKind::recurrent:
          if (op.masked)
            recurrent_masked<kSingle>(op, x, rows, states[op.recurrent], y);
          else
            recurrent<kSingle>(layer, x, rows, states[op.recurrent], y);
          break;
        case LayerKind::dense:
          layer.dense->step(x, n, y);
          if (!layer.activation.is_linear()) apply(layer.activation, y, n, op.out / op.rows, y);
          break;
        case LayerKind::activation:
          apply(layer.activation, x, n, op.columns, y);
          break;
        case LayerKind::embedding:
          look_up(layer, x, n * op.columns, y);
          if (op.masked)
            for (int64_t r = 0; r < rows; ++r) used_[r] = x[r] != 0;
          break;
        case LayerKind::masking:
          if (op.masked) {
            mask_rows(layer.mask_value, x, n, op.columns, y, used_.data());
          } else {  // in a deeper array, where no layer would look at the mask
            uint8_t used;
            for (int64_t r = 0; r < n; ++r)
              mask_rows(layer.mask_value, x + r * op.columns, 1, op.columns, y + r * op.columns,
                        &used);
          }
          break;
        case LayerKind::flatten:
        case LayerKind::bidirectional:
        case LayerKind::time_distributed:
          break;  // never in a program
      }
      x = y;
    }
  }

 private:
  template <bool kSingle>
  void recurrent(const GraphLayer<T>& layer, const T* x, int64_t rows, const States<T>& states,
                 T* y) noexcept {
    if constexpr (kSingle)
      layer.recurrent->step(x, states.state[0], 1, y);
    else
      layer.recurrent->step_rows(x, rows, states.state, scratch_.data(), y);
  }

  // A masked row keeps its states and gives its last output again, or zeros.
  template <bool kSingle>
  void recurrent_masked(const Operation<T>& op, const T* x, int64_t rows, const States<T>& states,
                        T* y) noexcept {
    const GraphLayer<T>& layer = *op.layer;
    const int64_t units = layer.recurrent->units();
    const int count = kSingle ? 0 : layer.recurrent->cell().states;
    if (!kSingle || used_[0]) {
      for (int s = 0; s < count; ++s)
        for (int64_t r = 0; r < rows; ++r)
          if (!used_[r])
            std::copy_n(states.state[s] + r * units, units, kept_.data() + (s * most_ + r) * units);
      recurrent<kSingle>(layer, x, rows, states, y);
      for (int s = 0; s < count; ++s)
        for (int64_t r = 0; r < rows; ++r)
          if (!used_[r])
            std::copy_n(kept_.data() + (s * most_ + r) * units, units, states.state[s] + r * units);
    }
    for (int64_t r = 0; r < rows; ++r) {
      T *result = y + r * units, *previous = states.previous + r * units;
      if (used_[r]) {
        std::copy_n(result, units, previous);
      } else {
        if (layer.zero_output_for_mask) std::fill_n(previous, units, T(0));
        std::copy_n(previous, units, result);
      }
    }
  }

  const Program<T>& program_;
  const int64_t most_;
  std::vector<Buffer<T>> results_;  // of every operation but the last
  Buffer<T> scratch_, kept_;
  std::vector<uint8_t> used_;  // under a mask: which rows of this step count
};

// What a Stream holds in the model's own type.
template <class T>
struct StreamOf {
  const Program<T> program;
  const int64_t batch;
  Worker<T> worker;
  std::vector<Buffer<T>> memory;    // of each recurrent layer, as Recurrent::step lays it out
  std::vector<Buffer<T>> previous;  // (batch, units) of each
  std::vector<States<T>> states;    // of the first row
  std::vector<States<T>> block;     // of the rows at work
  Buffer<T> input, output;          // for calls with the other type

  StreamOf(const Graph<T>& graph, int64_t batch)
      : program(graph), batch(batch), worker(program, std::min(batch, kBlockRows)) {
    for (const Recurrent<T>* layer : program.recurrent) {
      memory.push_back(Worker<T>::zeros(layer->step_memory(batch)));
      previous.push_back(Worker<T>::zeros(program.masks ? batch * layer->units() : 0));
      states.push_back({{}, previous.back().data()});
      for (int s = 0; s < layer->cell().states; ++s)
        states.back().state[s] = layer->step_state(memory.back().data(), batch, s, 0);
      if (batch == 1) states.back().state[0] = memory.back().data();
    }
    block = states;
    input = Worker<T>::zeros(batch * program.input_size);
    output = Worker<T>::zeros(batch * program.output_size);
    step(input.data(), output.data());  // whatever happens at a first call happens here
    reset();
  }

  void step(const T* x, T* y) noexcept {
    if (batch == 1) return worker.template run<true>(x, 1, states.data(), y);
    for (int64_t first = 0; first < batch; first += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, batch - first);
      for (size_t i = 0; i < states.size(); ++i) {
        const int64_t offset = first * program.recurrent[i]->units();
        for (int s = 0; s < kMaxStates; ++s) block[i].state[s] = states[i].state[s] + offset;
        block[i].previous = states[i].previous + offset;
      }
      worker.template run<false>(x + first * program.input_size, rows, block.data(),
                                 y + first * program.output_size);
    }
  }

  void reset() noexcept {
    for (size_t i = 0; i < states.size(); ++i) {
      program.recurrent[i]->reset_step(memory[i].data(), batch);
      if (previous[i].data()) std::fill_n(previous[i].data(), previous[i].size(), T(0));
    }
  }
  void reset(int64_t row) noexcept {
    for (size_t i = 0; i < states.size(); ++i) {
      const int64_t units = program.recurrent[i]->units();
      for (int s = 0; s < program.states(static_cast<int>(i)); ++s)
        std::fill_n(state(static_cast<int>(i), s, row), units, T(0));
      if (previous[i].data()) std::fill_n(previous[i].data() + row * units, units, T(0));
    }
  }
  T* state(int layer, int s, int64_t row) noexcept {
    return program.recurrent[layer]->step_state(memory[layer].data(), batch, s, row);
  }
  template <class Other>
  void get_state(int layer, int s, Other* value) noexcept {
    const int64_t units = program.recurrent[layer]->units();
    for (int64_t row = 0; row < batch; ++row)
      std::copy_n(state(layer, s, row), units, value + row * units);
  }
  template <class Other>
  void set_state(int layer, int s, const Other* value) noexcept {
    const int64_t units = program.recurrent[layer]->units();
    for (int64_t row = 0; row < batch; ++row)
      std::copy_n(value + row * units, units, state(layer, s, row));
  }
  void copy_states(const StreamOf& other) noexcept {
    for (size_t i = 0; i < states.size(); ++i) {
      std::copy_n(other.memory[i].data(), memory[i].size(), memory[i].data());
      if (previous[i].data())
        std::copy_n(other.previous[i].data(), previous[i].size(), previous[i].data());
    }
  }

  template <class Other>
  bool knows(const Other* x) const noexcept {
    return !program.embedding || std::all_of(x, x + batch * program.input_size, [&](Other id) {
      return is_id(*program.embedding, id);
    });
  }

  template <class Other>
  void step_as(const Other* x, Other* y) noexcept {
    if constexpr (std::is_same_v<T, Other>) {
      step(x, y);
    } else {
      std::copy_n(x, input.size(), input.data());
      step(input.data(), output.data());
      std::copy_n(output.data(), output.size(), y);
    }
  }
};

// What a StreamPool holds in the model's own type.
template <class T>
struct PoolOf {
  const Program<T> program;
  std::vector<std::vector<Buffer<T>>>
      states;  // of each recurrent layer, (capacity, units) each; the last is `previous`
  struct Lane {
    Worker<T> worker;
    std::vector<Buffer<T>> rows;  // the block's states: kMaxStates + 1 for each recurrent layer
    std::vector<States<T>> states;
  };
  std::vector<std::unique_ptr<Lane>> lanes;  // one per thread
  Buffer<T> input, output;                   // for calls with the other type
  double flops_per_row = 0;

  PoolOf(const Graph<T>& graph, int64_t capacity) : program(graph) {
    for (const auto& operation : program.operations) {
      flops_per_row += 2.0 * static_cast<double>(operation.rows * operation.columns) *
                       static_cast<double>(operation.out);
    }
    for (const Recurrent<T>* layer : program.recurrent) {
      const double units = static_cast<double>(layer->units());
      flops_per_row +=
          2.0 * layer->cell().gates * units * (units + static_cast<double>(layer->features()));
      states.emplace_back();
      for (int s = 0; s < layer->cell().states; ++s)
        states.back().push_back(zeros(capacity, layer->units()));
      states.back().push_back(zeros(program.masks ? capacity : 0, layer->units()));
    }
    grow(1);
  }
  static Buffer<T> zeros(int64_t rows, int64_t columns) {
    return Worker<T>::zeros(product({rows, columns}));
  }

  void grow(int threads) {
    while (static_cast<int>(lanes.size()) < threads) {
      auto lane = std::make_unique<Lane>(Lane{Worker<T>(program, kBlockRows), {}, {}});
      for (const Recurrent<T>* layer : program.recurrent) {
        States<T> block{};
        for (int s = 0; s <= kMaxStates; ++s) {
          const bool wanted = s < layer->cell().states || (s == kMaxStates && program.masks);
          lane->rows.push_back(zeros(wanted ? kBlockRows : 0, layer->units()));
          (s < kMaxStates ? block.state[s] : block.previous) = lane->rows.back().data();
        }
        lane->states.push_back(block);
      }
      lanes.push_back(std::move(lane));
    }
  }

  void step(const int64_t* ids, int64_t count, const T* x, T* y) {
    const double flops = flops_per_row * static_cast<double>(count);
    const int threads = static_cast<int>(std::min<int64_t>(threads_for(flops), count));
    grow(threads);
    parallel(threads, flops, [&](int part, int parts, Barrier*) {
      Lane& lane = *lanes[part];
      const int64_t last = count * (part + 1) / parts;
      for (int64_t first = count * part / parts; first < last; first += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, last - first);
        move(lane, ids + first, rows, true);
        lane.worker.template run<false>(x + first * program.input_size, rows, lane.states.data(),
                                        y + first * program.output_size);
        move(lane, ids + first, rows, false);
      }
    });
  }

  // The states of some streams into a lane, or back.
  void move(Lane& lane, const int64_t* ids, int64_t rows, bool in) noexcept {
    for (size_t i = 0; i < states.size(); ++i) {
      const int64_t units = program.recurrent[i]->units();
      for (size_t s = 0; s < states[i].size(); ++s) {
        T* all = states[i][s].data();
        T* block = s + 1 == states[i].size() ? lane.states[i].previous : lane.states[i].state[s];
        if (!all) continue;
        for (int64_t r = 0; r < rows; ++r) {
          T *stored = all + ids[r] * units, *row = block + r * units;
          std::memcpy(in ? row : stored, in ? stored : row, static_cast<size_t>(units) * sizeof(T));
        }
      }
    }
  }

  void reset(int64_t id) noexcept {
    for (size_t i = 0; i < states.size(); ++i)
      for (auto& state : states[i])
        if (state.data())
          std::fill_n(state.data() + id * program.recurrent[i]->units(),
                      program.recurrent[i]->units(), T(0));
  }

  template <class Other>
  void step_as(const int64_t* ids, int64_t count, const Other* x, Other* y) {
    if constexpr (std::is_same_v<T, Other>) {
      if (program.embedding) check_ids(*program.embedding, x, count * program.input_size);
      step(ids, count, x, y);
    } else {
      if (input.size() < count * program.input_size) input.resize(count * program.input_size);
      if (output.size() < count * program.output_size) output.resize(count * program.output_size);
      std::copy_n(x, count * program.input_size, input.data());
      if (program.embedding)
        check_ids(*program.embedding, input.data(), count * program.input_size);
      step(ids, count, input.data(), output.data());
      std::copy_n(output.data(), count * program.output_size, y);
    }
  }
};

}  // namespace

// ---- Stream ------------------------------------------------------------------------------------
struct Stream::Impl {
  Model model;
  std::unique_ptr<StreamOf<float>> single;
  std::unique_ptr<StreamOf<double>> twice;  // one of the two

  Impl(const Model& model, const Model::Impl& parts, int64_t batch) : model(model) {
    if (batch < 1 || batch > (int64_t(1) << 31))
      fail("Stream batch", "a number from 1 to 2^31", std::to_string(batch));
    if (parts.single)
      single = std::make_unique<StreamOf<float>>(*parts.single, batch);
    else
      twice = std::make_unique<StreamOf<double>>(*parts.twice, batch);
  }
  template <class F>
  decltype(auto) with(F f) {
    return single ? f(*single) : f(*twice);
  }
};

Stream::Stream(const Model& model, int64_t batch)
    : impl_(std::make_unique<Impl>(model, *model.impl_, batch)) {}
Stream::~Stream() = default;
Stream::Stream(const Stream& other) : Stream(other.impl_->model, other.batch()) { *this = other; }
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;
Stream& Stream::operator=(const Stream& other) {
  if (this == &other) return *this;
  if (impl_->model.impl_ != other.impl_->model.impl_ || batch() != other.batch())
    impl_ = std::make_unique<Impl>(other.impl_->model, *other.impl_->model.impl_, other.batch());
  if (impl_->single)
    impl_->single->copy_states(*other.impl_->single);
  else
    impl_->twice->copy_states(*other.impl_->twice);
  return *this;
}

void Stream::step(const float* input, float* output) noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.step_as(input, output); });
}
void Stream::step(const double* input, double* output) noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.step_as(input, output); });
}
bool Stream::knows(const float* input) const noexcept {
  return impl_->with([&](auto& stream) { return stream.knows(input); });
}
bool Stream::knows(const double* input) const noexcept {
  return impl_->with([&](auto& stream) { return stream.knows(input); });
}
void Stream::reset() noexcept TIDEGATE_NONBLOCKING {
  impl_->with([](auto& stream) { stream.reset(); });
}
void Stream::reset(int64_t row) noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.reset(row); });
}
int64_t Stream::batch() const noexcept {
  return impl_->with([](auto& stream) { return stream.batch; });
}
int64_t Stream::input_size() const noexcept {
  return impl_->with([](auto& stream) { return stream.program.input_size; });
}
int64_t Stream::output_size() const noexcept {
  return impl_->with([](auto& stream) { return stream.program.output_size; });
}
bool Stream::is_double() const noexcept { return impl_->twice != nullptr; }
int Stream::layers() const noexcept {
  return impl_->with([](auto& stream) { return static_cast<int>(stream.states.size()); });
}
int Stream::states(int layer) const noexcept {
  return impl_->with([&](auto& stream) { return stream.program.states(layer); });
}
int64_t Stream::state_size(int layer) const noexcept {
  return impl_->with([&](auto& stream) { return stream.program.recurrent[layer]->units(); });
}
void Stream::get_state(int layer, int state, float* value) const noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.get_state(layer, state, value); });
}
void Stream::get_state(int layer, int state, double* value) const noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.get_state(layer, state, value); });
}
void Stream::set_state(int layer, int state, const float* value) noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.set_state(layer, state, value); });
}
void Stream::set_state(int layer, int state, const double* value) noexcept TIDEGATE_NONBLOCKING {
  impl_->with([&](auto& stream) { stream.set_state(layer, state, value); });
}

// ---- StreamPool --------------------------------------------------------------------------------
struct StreamPool::Impl {
  Model model;
  std::unique_ptr<PoolOf<float>> single;
  std::unique_ptr<PoolOf<double>> twice;  // one of the two
  std::vector<int64_t> free;              // ids, the next one last
  enum : uint8_t { closed, opened, listed };
  std::vector<uint8_t> status;  // of every id; listed while the arguments of a call are checked

  Impl(const Model& model, const Model::Impl& parts, int64_t capacity) : model(model) {
    if (capacity < 1 || capacity > (int64_t(1) << 31))
      fail("StreamPool capacity", "a number from 1 to 2^31", std::to_string(capacity));
    if (parts.single)
      single = std::make_unique<PoolOf<float>>(*parts.single, capacity);
    else
      twice = std::make_unique<PoolOf<double>>(*parts.twice, capacity);
    status.assign(static_cast<size_t>(capacity), closed);
    for (int64_t id = capacity; id > 0; --id) free.push_back(id - 1);
  }
  template <class F>
  decltype(auto) with(F f) {
    return single ? f(*single) : f(*twice);
  }

  void check(const int64_t* ids, int64_t count) {
    int64_t i = 0;
    for (; i < count; ++i) {
      const int64_t id = ids[i];
      if (id < 0 || id >= static_cast<int64_t>(status.size()) || status[id] != opened) break;
      status[id] = listed;
    }
    for (int64_t j = 0; j < i; ++j) status[ids[j]] = opened;
    if (i == count) return;
    const bool twice_listed = std::find(ids, ids + i, ids[i]) != ids + i;
    fail("StreamPool", "ids of open streams, each once",
         std::to_string(ids[i]) + (twice_listed ? " twice" : ", which is not open"));
  }
};

StreamPool::StreamPool(const Model& model, int64_t capacity)
    : impl_(std::make_unique<Impl>(model, *model.impl_, capacity)) {}
StreamPool::~StreamPool() = default;
StreamPool::StreamPool(StreamPool&&) noexcept = default;
StreamPool& StreamPool::operator=(StreamPool&&) noexcept = default;

int64_t StreamPool::open() {
  if (impl_->free.empty())
    fail("StreamPool", "room for another stream",
         std::to_string(capacity()) + " open, its capacity");
  const int64_t id = impl_->free.back();
  impl_->free.pop_back();
  impl_->status[id] = Impl::opened;
  impl_->with([&](auto& pool) { pool.reset(id); });
  return id;
}
void StreamPool::close(int64_t id) {
  impl_->check(&id, 1);
  impl_->status[id] = Impl::closed;
  impl_->free.push_back(id);
}
void StreamPool::step(const int64_t* ids, int64_t count, const float* input, float* output) {
  impl_->check(ids, count);
  impl_->with([&](auto& pool) { pool.step_as(ids, count, input, output); });
}
void StreamPool::step(const int64_t* ids, int64_t count, const double* input, double* output) {
  impl_->check(ids, count);
  impl_->with([&](auto& pool) { pool.step_as(ids, count, input, output); });
}
void StreamPool::reset(const int64_t* ids, int64_t count) {
  impl_->check(ids, count);
  impl_->with([&](auto& pool) {
    for (int64_t i = 0; i < count; ++i) pool.reset(ids[i]);
  });
}
int64_t StreamPool::capacity() const noexcept { return static_cast<int64_t>(impl_->status.size()); }
int64_t StreamPool::size() const noexcept {
  return capacity() - static_cast<int64_t>(impl_->free.size());
}
int64_t StreamPool::input_size() const noexcept {
  return impl_->with([](auto& pool) { return pool.program.input_size; });
}
int64_t StreamPool::output_size() const noexcept {
  return impl_->with([](auto& pool) { return pool.program.output_size; });
}
bool StreamPool::is_double() const noexcept { return impl_->twice != nullptr; }

}  // namespace tidegate
