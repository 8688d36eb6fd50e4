// Layers: checks sizes, packs weights, lays out memory, chooses the split over threads, and calls
// the kernels.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>

#include "activation.hpp"
#include "dispatch.hpp"
#include "memory.hpp"
#include "team.hpp"
#include "tidegate/layers.hpp"

namespace tidegate {
namespace {

constexpr const char* kActivationNames[] = {"linear",
                                            "relu",
                                            "relu6",
                                            "leaky_relu",
                                            "elu",
                                            "selu",
                                            "celu",
                                            "gelu",
                                            "gelu_tanh",
                                            "silu",
                                            "sigmoid",
                                            "hard_sigmoid",
                                            "hard_sigmoid_keras2",
                                            "hard_silu",
                                            "hard_tanh",
                                            "tanh",
                                            "softplus",
                                            "softsign",
                                            "exponential",
                                            "mish",
                                            "log_sigmoid",
                                            "tanh_shrink"};

template <class T>
const CellKernels<T>& find_cell(const std::string& name) {
  std::string all;
  for (const auto& cell : kernels<T>().cells) {
    if (name == cell.info.name) return cell;
    all += (all.empty() ? "" : ", ") + std::string(cell.info.name);
  }
  throw Error("cell: expected one of " + all + ", got '" + name + "'");
}

CellDescription describe(const CellInfo& info) {
  return {info.name, info.gates, info.states, info.bias_rows};
}

void check_size(const char* what, int64_t n, int64_t least) {
  if (n < least || n > (int64_t(1) << 31))
    throw Error(std::string(what) + ": expected a number from " + std::to_string(least) +
                " to 2^31, got " + std::to_string(n));
}

// n columns in whole vectors, the tail in half of one where that holds it: Panels in
// kernels/gemm.hpp.
template <class T>
int64_t padded(int64_t n) {
  const int64_t lanes = kernels<T>().lanes, half = kernels<T>().half_lanes, rest = n % lanes;
  return n - rest + (rest == 0 ? 0 : rest <= half ? half : lanes);
}

// Rows of the state lie this far apart. Not a multiple of 1 KiB: the rows of a tile would fall into
// one set of the L1.
template <class T>
int64_t state_stride(int64_t units) {
  const int64_t lanes = 64 / static_cast<int64_t>(sizeof(T)),
                size = (padded<T>(units) + lanes - 1) / lanes * lanes;
  return size * static_cast<int64_t>(sizeof(T)) % 1024 == 0 ? size + lanes : size;
}

int64_t clamp(int64_t n, int64_t low, int64_t high) { return std::max(low, std::min(n, high)); }

struct Plan {
  int threads;
  Split split;
};
// What a plan depends on.
struct Work {
  double flops, step_flops;
  int64_t batch, panels;
  int recurrent_products;
  int64_t recurrent_bytes;  // the weights of a step
  bool operator==(const Work& other) const {
    return flops == other.flops && step_flops == other.step_flops && batch == other.batch &&
           panels == other.panels && recurrent_products == other.recurrent_products;
  }
};

// Weights of which a core's L2 and its share of the last cache hold little: they had better be read
// once for many rows.
constexpr int64_t kLargeWeights = int64_t(8) << 20;

// For at most so many threads. Rows where every thread gets a few (they meet nobody); else units,
// if a step has enough work to pay for meeting the others after it. Units, too, where the weights
// are large: a thread then reads its part of them for all rows, not all of them for its own rows.
Plan plan(const Work& work, int most) {
  if (most == 1) return {1, Split::rows};
  const bool large = work.recurrent_bytes >= kLargeWeights && work.panels >= 2 * most;
  if (work.batch >= 3 * most && !large) return {most, Split::rows};
  // To meet takes 60 to 280 ns, as the cores lie: a step of 64 units of a GRU (250 ns) gains too
  // little from it at best.
  const int by_units = static_cast<int>(std::min<int64_t>(
      {most, work.panels, threads_for(work.step_flops * 16 / work.recurrent_products)}));
  const int by_rows = static_cast<int>(std::min<int64_t>(most, work.batch));
  if (by_units > 1 && by_units >= by_rows) return {by_units, Split::units};
  return {by_rows, Split::rows};
}

Plan plan(const Work& work) { return plan(work, threads_for(work.flops)); }

// Of each of two calls that run side by side; no threads: one after the other is better. It is for
// unlike calls, of which one would wait for the other; where an odd thread would be left over; and
// for weights that would crowd a core's L2: threads on the same call have half of them each, or
// share them in L3.
Plan plan(const Work& one, const Work& other) {
  const Plan none{0, Split::rows}, alone = plan(one);
  const int each = threads_for(one.flops + other.flops) / 2;
  if (!(one == other) || one.batch == 0 || each == 0 || 2 * each < alone.threads) return none;
  if (alone.threads > 1 && one.recurrent_bytes > (192 << 10)) return none;
  return plan(one, each);
}

// The poll of one or two calls. The calling thread asks it; who runs the other call meanwhile
// stops with it.
struct Stopping {
  Poll poll;
  std::atomic<bool> stopped{false};
};

// A call made ready for the kernels: their arguments and the memory behind them.
struct Job {
  Stopping* stopping = nullptr;
  bool on_caller = true;
  int32_t stop = 0;
  static bool ask(void* data) {
    const Job& job = *static_cast<Job*>(data);
    Stopping& all = *job.stopping;
    if (job.on_caller && !all.stopped.load(std::memory_order_relaxed) &&
        all.poll.ask(all.poll.data))
      all.stopped.store(true, std::memory_order_relaxed);
    return all.stopped.load(std::memory_order_relaxed);
  }
  template <class T>
  void stops(ForwardArgs<T>& a, Stopping& all) {
    stopping = &all;
    a.stop = &stop;
    a.poll = all.poll.ask ? ask : nullptr;
    a.poll_data = this;
  }
};

template <class J>
void run(J* jobs, int count, int threads_each, double flops) {
  side_by_side(count, count * threads_each, flops, [&](int i, const Place& place) {
    if (place.thread == 0) jobs[i].on_caller = place.group == 0;
    jobs[i].run(place);
  });
  if (jobs[0].stopping->stopped) throw Interrupted();
}

}  // namespace

Activation find_activation(const std::string& name) {
  int i = 0;
  for (const char* known : kActivationNames) {
    if (name == known) return static_cast<Activation>(i);
    ++i;
  }
  std::string all;
  for (const char* known : kActivationNames) all += (all.empty() ? "" : ", ") + std::string(known);
  throw Error("activation: expected one of " + all + ", got '" + name + "'");
}

std::vector<CellDescription> cells() {
  std::vector<CellDescription> all;
  for (const auto& cell : kernels<float>().cells) all.push_back(describe(cell.info));
  return all;
}

std::vector<std::string> activations() {
  return {std::begin(kActivationNames), std::end(kActivationNames)};
}

// ----------------------------------------------------------------------------------------------
// recurrent
template <class T>
struct Context<T>::Data {
  ForwardArgs<T> args{};
  Buffer<T> state[kMaxStates], reset_state, saved;
};
template <class T>
Context<T>::Context() = default;
template <class T>
Context<T>::~Context() = default;
template <class T>
Context<T>::Context(Context&&) noexcept = default;
template <class T>
Context<T>& Context<T>::operator=(Context&&) noexcept = default;

template <class T>
struct Recurrent<T>::Impl {
  const CellKernels<T>& cell;
  CellDescription description;
  int64_t features, units;
  Activation activation, recurrent_activation;
  bool plain;
  int64_t row;  // from one row of a state to the next
  Buffer<T> kernel, recurrent_kernel, bias, recurrent_bias;
  mutable std::mutex preparing;
  std::atomic<bool> prepared{false};
  Buffer<T> kernel_transposed, recurrent_kernel_transposed;

  Impl(const std::string& name, int64_t features, int64_t units, const std::string& activation,
       const std::string& recurrent_activation)
      : cell(find_cell<T>(name)),
        description(describe(cell.info)),
        features(features),
        units(units),
        activation(find_activation(activation)),
        recurrent_activation(find_activation(recurrent_activation)),
        plain(this->activation == Activation::tanh &&
              this->recurrent_activation == Activation::sigmoid),
        row(0) {
    check_size("features", features, 1);
    check_size("units", units, 1);
    row = state_stride<T>(units);
  }

  int gates() const { return cell.info.gates; }
  int64_t saved_vectors() const {
    return std::max(1, plain ? cell.info.saved : cell.info.saved_generic);
  }
  double flops(int64_t rows) const { return 2.0 * gates() * units * (features + units) * rows; }
  // No more than there are panels to share: a thread without work would only be waited for.
  int packing_threads() const {
    return static_cast<int>(std::min<int64_t>(threads_for(flops(2)), panels()));
  }
  int64_t panels() const { return (units + kernels<T>().lanes - 1) / kernels<T>().lanes; }

  ForwardArgs<T> weights() const {
    ForwardArgs<T> a{};
    a.features = features, a.units = units;
    a.activation = activation, a.recurrent_activation = recurrent_activation;
    a.kernel = kernel.data(), a.recurrent_kernel = recurrent_kernel.data();
    a.bias = bias.data(), a.recurrent_bias = recurrent_bias.data();
    a.state_stride = row;
    return a;
  }
  ForwardArgs<T> prepared_weights;  // weights(), for steps

  // A step's memory for one row: the number of the set of states in use, both sets (a step reads
  // one and writes the other), scratch. For more rows: the states (batch, units) each, scratch.
  static constexpr int64_t kLanes = 64 / static_cast<int64_t>(sizeof(T));
  static int64_t rounded(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }
  int64_t both_states() const { return kLanes; }
  int64_t single_scratch() const { return kLanes + 2 * cell.info.states * row; }
  int64_t state_size(int64_t batch) const { return rounded(batch * units); }
  int64_t projection_size(int64_t rows) const { return rounded(rows * gates() * padded<T>(units)); }
  int64_t saved_size(int64_t rows) const {
    return cell.info.two_phases ? rounded(rows * padded<T>(units) * saved_vectors()) : 0;
  }

  Work work(int64_t batch, double flops) const {
    const int64_t weights = gates() * units * units;
    return {flops,    2.0 * weights * batch,        batch,
            panels(), cell.info.two_phases ? 2 : 1, weights * static_cast<int64_t>(sizeof(T))};
  }
  struct ForwardJob;
  struct BackwardJob;
  void check(const ForwardCall<T>& call) const;
  void prepare(const ForwardCall<T>& call, const Plan& plan, ForwardJob& job) const;
  void prepare(const BackwardCall<T>& call, const Plan& plan, BackwardJob& job) const;
  void clear(const LayerGradients<T>& gradients) const;
  static void forward(const ForwardCall<T>* calls, int count, Poll poll);
  static void backward(const BackwardCall<T>* calls, int count, Poll poll);
};

template <class T>
struct Recurrent<T>::Impl::ForwardJob : Job {
  const CellKernels<T>* cell = nullptr;
  ForwardArgs<T> args{};
  std::unique_ptr<typename Context<T>::Data> kept;  // with a context
  typename Context<T>::Data local;
  Buffer<T> dropped_state, dropped_x, projection;
  Buffer<int32_t> projected_rows, row_ids;
  void run(const Place& at) { cell->forward(args, at.thread, at.threads, at.barrier); }
};

template <class T>
struct Recurrent<T>::Impl::BackwardJob : Job {
  const CellKernels<T>* cell = nullptr;
  ForwardArgs<T> forward{};
  BackwardArgs<T> args{};
  Buffer<T> d_state[kMaxStates], d_z[2], sums, packed_rows;
  Buffer<int32_t> place[2], unmasked[2], row_ids, first_valid;
  void run(const Place& at) { cell->backward(args, at.thread, at.threads, at.barrier); }
};

template <class T>
Recurrent<T>::Recurrent(const std::string& cell, int64_t features, int64_t units, const T* kernel,
                        const T* recurrent_kernel, const T* bias, const std::string& activation,
                        const std::string& recurrent_activation)
    : impl(std::make_unique<Impl>(cell, features, units, activation, recurrent_activation)) {
  Impl& m = *impl;
  m.kernel.resize(m.cell.packed_kernel_size(features, units));
  m.recurrent_kernel.resize(m.cell.packed_kernel_size(units, units));
  m.bias.resize(m.gates() * padded<T>(units));
  m.cell.pack_bias(bias, units, m.bias.data());
  if (m.cell.info.bias_rows == 2 && bias) {
    m.recurrent_bias.resize(m.gates() * padded<T>(units));
    m.cell.pack_bias(bias + m.gates() * units, units, m.recurrent_bias.data());
  }
  parallel(m.packing_threads(), m.flops(2), [&](int part, int parts, Barrier*) {
    m.cell.pack_kernel(kernel, features, units, false, m.kernel.data(), part, parts);
    m.cell.pack_kernel(recurrent_kernel, units, units, true, m.recurrent_kernel.data(), part,
                       parts);
  });
  m.prepared_weights = m.weights();
}

template <class T>
Recurrent<T>::~Recurrent() = default;
template <class T>
const CellDescription& Recurrent<T>::cell() const {
  return impl->description;
}
template <class T>
int64_t Recurrent<T>::features() const {
  return impl->features;
}
template <class T>
int64_t Recurrent<T>::units() const {
  return impl->units;
}

template <class T>
void Recurrent<T>::prepare_training(const T* kernel, const T* recurrent_kernel) {
  Impl& m = *impl;
  if (m.prepared.load(std::memory_order_acquire)) return;
  std::lock_guard<std::mutex> lock(m.preparing);
  if (m.prepared.load(std::memory_order_relaxed)) return;
  m.kernel_transposed.resize(m.cell.packed_transposed_size(m.features, m.units));
  m.recurrent_kernel_transposed.resize(m.cell.packed_transposed_size(m.units, m.units));
  parallel(m.packing_threads(), m.flops(2), [&](int part, int parts, Barrier*) {
    m.cell.pack_transposed(kernel, m.features, m.units, false, m.kernel_transposed.data(), part,
                           parts);
    m.cell.pack_transposed(recurrent_kernel, m.units, m.units, true,
                           m.recurrent_kernel_transposed.data(), part, parts);
  });
  m.prepared.store(true, std::memory_order_release);
}

template <class T>
void Recurrent<T>::Impl::check(const ForwardCall<T>& call) const {
  check_size("batch", call.input.batch, 0);
  check_size("time", call.input.time, 1);
  if (call.input.batch > 0 && call.context && !prepared.load(std::memory_order_acquire))
    throw Error(
        "Recurrent.forward: expected prepare_training before a call with a context, got none");
}

template <class T>
void Recurrent<T>::Impl::prepare(const ForwardCall<T>& call, const Plan& plan,
                                 ForwardJob& job) const {
  const Impl& m = *this;
  const SequenceInput<T>& in = call.input;
  const SequenceOutput<T>& out = call.output;
  const int states = m.cell.info.states, gates = m.gates();
  job.cell = &m.cell;
  ForwardArgs<T>& a = job.args;
  a = m.weights();
  a.batch = in.batch, a.time = in.time;
  a.split = plan.split;
  const int64_t last = in.go_backwards ? in.time - 1 : 0, direction = in.go_backwards ? -1 : 1;
  a.x = in.x + last * m.features;
  a.x_batch_stride = in.time * m.features, a.x_time_stride = direction * m.features;
  if (in.mask) a.mask = in.mask + last;
  a.mask_batch_stride = in.time, a.mask_time_stride = direction;
  a.zero_output_for_mask = in.zero_output_for_mask;
  a.input_dropout = in.input_dropout;
  a.recurrent_dropout = in.recurrent_dropout;
  a.outputs = out.outputs;
  a.output_batch_stride = in.time * m.units, a.output_time_stride = m.units;
  a.last_output = out.last_output;
  for (int s = 0; s < states; ++s)
    a.initial_state[s] = in.initial_state[s], a.final_state[s] = out.final_state[s];

  // Memory. The projection of a chunk should stay in L2, but a product wants some tiles of rows per
  // pass over W, and many where W comes from afar.
  if (call.context) job.kept = std::make_unique<typename Context<T>::Data>();
  typename Context<T>::Data& memory = job.kept ? *job.kept : job.local;
  a.training = call.context != nullptr;
  a.slices = a.training ? in.time + 1 : 2;
  // Rows of two threads lie apart: hardware fetches lines around those in use, and cores would wait
  // for each other's. (Not among many rows, of which few have such a neighbour, nor in training,
  // which keeps the states of every step: it is not worth the memory.)
  if (!a.training && plan.split == Split::rows && plan.threads > 1 && in.batch <= 32 * plan.threads)
    a.state_stride += 1024 / static_cast<int64_t>(sizeof(T));
  const int64_t slice = in.batch * a.state_stride, columns = padded<T>(m.units);
  for (int s = 0; s < states; ++s) {
    memory.state[s].resize(a.slices * slice);
    a.state[s] = memory.state[s].data();
  }
  if (m.cell.info.two_phases) {
    memory.reset_state.resize((a.training ? in.time : 1) * slice);
    a.reset_state = memory.reset_state.data();
  }
  if (a.training || m.cell.info.two_phases) {
    memory.saved.resize((a.training ? in.time : 1) * columns * in.batch * m.saved_vectors());
    a.saved = memory.saved.data();
  }
  job.dropped_state.resize(in.recurrent_dropout ? 2 * gates * slice : 0);
  a.dropped_state = job.dropped_state.data();
  const int64_t thread_rows =
      plan.split == Split::rows ? (in.batch + plan.threads - 1) / plan.threads : in.batch;
  const int64_t lanes = kernels<T>().lanes;
  const int64_t thread_columns =
      plan.split == Split::units ? (m.panels() + plan.threads - 1) / plan.threads * lanes : columns;
  const int64_t row_bytes = gates * thread_columns * static_cast<int64_t>(sizeof(T));
  const bool large = m.features * row_bytes >= kLargeWeights;
  const int64_t rows = std::max<int64_t>(large ? 384 : 48, (256 << 10) / row_bytes);
  a.chunk = clamp((rows + thread_rows - 1) / thread_rows, 1, in.time);
  job.dropped_x.resize(in.input_dropout ? plan.threads * gates * a.chunk * in.batch * m.features
                                        : 0);
  a.dropped_x = job.dropped_x.data();
  job.projection.resize(a.chunk * in.batch * gates * columns);
  a.projection = job.projection.data();
  job.projected_rows.resize(in.mask ? plan.threads * 2 * a.chunk * in.batch : 0);
  a.projected_rows = job.projected_rows.data();
  job.row_ids.resize(plan.threads * in.batch);
  a.row_ids = job.row_ids.data();
}

template <class T>
void Recurrent<T>::Impl::forward(const ForwardCall<T>* calls, int count, Poll poll) {
  Work work[kMostGroups]{};
  for (int i = 0; i < count; ++i) {
    const Impl& m = *calls[i].layer->impl;
    m.check(calls[i]);
    work[i] = m.work(calls[i].input.batch, m.flops(calls[i].input.batch * calls[i].input.time));
  }
  if (count == 1 && work[0].batch == 0) return;
  const Plan plan = count == 1 ? tidegate::plan(work[0]) : tidegate::plan(work[0], work[1]);
  if (plan.threads == 0) {
    forward(calls, 1, poll);
    try {
      forward(calls + 1, 1, poll);
    } catch (...) {  // both or neither
      if (calls[0].context) *calls[0].context = {};
      throw;
    }
    return;
  }
  ForwardJob jobs[kMostGroups];
  Stopping stopping{poll};
  for (int i = 0; i < count; ++i) {
    calls[i].layer->impl->prepare(calls[i], plan, jobs[i]);
    jobs[i].stops(jobs[i].args, stopping);
  }
  run(jobs, count, plan.threads, count * work[0].flops);
  for (int i = 0; i < count; ++i)
    if (jobs[i].kept) {
      jobs[i].kept->args = jobs[i].args;
      calls[i].context->data = std::move(jobs[i].kept);
    }
}

template <class T>
void Recurrent<T>::forward(const SequenceInput<T>& in, const SequenceOutput<T>& out,
                           Context<T>* context, Poll poll) const {
  const ForwardCall<T> call{this, in, out, context};
  Impl::forward(&call, 1, poll);
}

template <class T>
void Recurrent<T>::forward_both(const ForwardCall<T>& one, const ForwardCall<T>& other, Poll poll) {
  const ForwardCall<T> calls[]{one, other};
  Impl::forward(calls, 2, poll);
}

template <class T>
void Recurrent<T>::Impl::prepare(const BackwardCall<T>& call, const Plan& plan,
                                 BackwardJob& job) const {
  const Impl& m = *this;
  const SequenceGradients<T>& d_out = call.d_output;
  const LayerGradients<T>& gradients = call.gradients;
  const int states = m.cell.info.states;
  job.cell = &m.cell;
  ForwardArgs<T>& a = job.forward;
  a = call.context->data->args;
  a.split = plan.split;

  BackwardArgs<T>& g = job.args;
  g.forward = &a;
  g.kernel_transposed = m.kernel_transposed.data();
  g.recurrent_kernel_transposed = m.recurrent_kernel_transposed.data();
  g.d_outputs = d_out.outputs;
  g.d_output_batch_stride = a.time * m.units, g.d_output_time_stride = m.units;
  g.d_last_output = d_out.last_output;
  if (gradients.x) {
    g.d_x = gradients.x + (a.x_time_stride < 0 ? (a.time - 1) * m.features : 0);
    g.d_x_batch_stride = a.x_batch_stride, g.d_x_time_stride = a.x_time_stride;
  }
  g.d_kernel = gradients.kernel;
  g.d_recurrent_kernel = gradients.recurrent_kernel;
  g.d_bias = gradients.bias;
  const int64_t slice = a.batch * a.state_stride, columns = padded<T>(m.units);
  for (int s = 0; s < states; ++s) {
    g.d_final_state[s] = d_out.final_state[s];
    g.d_initial_state[s] = gradients.initial_state[s];
    job.d_state[s].resize(slice);
    g.d_state[s] = job.d_state[s].data();
  }
  // The chunk depends on the shapes alone: it sets the order in which the weights' gradients add
  // up. Long enough that their sums are not carried in and out of the tiles too often, short enough
  // that d_z stays in the last cache.
  const int64_t row_bytes = m.cell.info.gradient_slots * columns * static_cast<int64_t>(sizeof(T));
  g.chunk = clamp(clamp((8 << 20) / row_bytes, 256, 768) / a.batch, 1, a.time);
  const int64_t chunk_rows = g.chunk * a.batch;
  for (int i = 0; i < 2; ++i) {
    job.d_z[i].resize((chunk_rows + 1) * m.cell.info.gradient_slots * columns);
    job.place[i].resize(chunk_rows);
    job.unmasked[i].resize(chunk_rows + 1);
    g.d_z[i] = job.d_z[i].data();
    g.place[i] = job.place[i].data(), g.unmasked[i] = job.unmasked[i].data();
  }
  const Dropouts dropouts{a.input_dropout != nullptr, a.recurrent_dropout != nullptr};
  job.sums.resize(m.cell.weight_sums_size(m.features, m.units, dropouts));
  g.weight_sums = job.sums.data();
  job.packed_rows.resize(m.cell.packed_rows_size(m.features, m.units, dropouts, chunk_rows));
  g.packed_rows = job.packed_rows.data();
  job.row_ids.resize(plan.threads * a.batch), job.first_valid.resize(a.mask ? a.batch : 0);
  g.row_ids = job.row_ids.data();
  g.first_valid = job.first_valid.data();
}

template <class T>
void Recurrent<T>::Impl::backward(const BackwardCall<T>* calls, int count, Poll poll) {
  Work work[kMostGroups]{};
  for (int i = 0; i < count; ++i)
    if (const auto* data = calls[i].context->data.get()) {
      const Impl& m = *calls[i].layer->impl;
      work[i] = m.work(data->args.batch, 2 * m.flops(data->args.batch * data->args.time));
    }
  if (count == 1 && work[0].batch == 0) return calls[0].layer->impl->clear(calls[0].gradients);
  const Plan plan = count == 1 ? tidegate::plan(work[0]) : tidegate::plan(work[0], work[1]);
  if (plan.threads == 0) {
    for (int i = 0; i < count; ++i) backward(calls + i, 1, poll);
    return;
  }
  BackwardJob jobs[kMostGroups];
  Stopping stopping{poll};
  for (int i = 0; i < count; ++i) {
    calls[i].layer->impl->prepare(calls[i], plan, jobs[i]);
    jobs[i].stops(jobs[i].forward, stopping);
  }
  run(jobs, count, plan.threads, count * work[0].flops);
}

// Of a batch of no rows.
template <class T>
void Recurrent<T>::Impl::clear(const LayerGradients<T>& gradients) const {
  std::fill_n(gradients.kernel, features * gates() * units, T(0));
  std::fill_n(gradients.recurrent_kernel, units * gates() * units, T(0));
  if (gradients.bias) std::fill_n(gradients.bias, cell.info.bias_rows * gates() * units, T(0));
}

template <class T>
void Recurrent<T>::backward(const Context<T>& context, const SequenceGradients<T>& d_out,
                            const LayerGradients<T>& gradients, Poll poll) const {
  const BackwardCall<T> call{this, &context, d_out, gradients};
  Impl::backward(&call, 1, poll);
}

template <class T>
void Recurrent<T>::backward_both(const BackwardCall<T>& one, const BackwardCall<T>& other,
                                 Poll poll) {
  const BackwardCall<T> calls[]{one, other};
  Impl::backward(calls, 2, poll);
}

template <class T>
int64_t Recurrent<T>::step_memory(int64_t batch) const {
  const Impl& m = *impl;
  if (batch == 1) return m.single_scratch() + m.row + m.saved_vectors() * m.row;
  return m.cell.info.states * m.state_size(batch) + step_scratch(batch);
}

template <class T>
void Recurrent<T>::reset_step(T* memory, int64_t batch) const noexcept {
  std::memset(memory, 0, static_cast<size_t>(step_memory(batch)) * sizeof(T));
}

template <class T>
T* Recurrent<T>::step_state(T* memory, int64_t batch, int state, int64_t row) const noexcept {
  const Impl& m = *impl;
  if (batch == 1) return memory + m.both_states() + (2 * state + (memory[0] != 0)) * m.row;
  return memory + state * m.state_size(batch) + row * m.units;
}

template <class T>
void Recurrent<T>::step(const T* x, T* memory, int64_t batch, T* output) const noexcept {
  const Impl& m = *impl;
  const int states = m.cell.info.states;
  if (batch != 1) {
    T* state[kMaxStates];
    for (int s = 0; s < states; ++s) state[s] = memory + s * m.state_size(batch);
    return step_rows(x, batch, state, memory + states * m.state_size(batch), output);
  }
  const int now = memory[0] != 0;
  const T* state[kMaxStates];
  T* new_state[kMaxStates];
  for (int s = 0; s < states; ++s) {
    T* both = memory + m.both_states() + s * 2 * m.row;
    state[s] = both + now * m.row;
    new_state[s] = both + (1 - now) * m.row;
  }
  FlushDenormals flush;
  if (m.cell.info.two_phases) {
    ForwardArgs<T> a = m.prepared_weights;
    a.reset_state = memory + m.single_scratch();
    a.saved = a.reset_state + m.row;
    m.cell.step(a, x, state, new_state, output, now != 0);
  } else {
    m.cell.step(m.prepared_weights, x, state, new_state, output, now != 0);
  }
  memory[0] = static_cast<T>(1 - now);
}

template <class T>
int64_t Recurrent<T>::step_scratch(int64_t rows) const {
  const Impl& m = *impl;
  const int64_t slices = 2 * m.cell.info.states + (m.cell.info.two_phases ? 1 : 0);
  return slices * rows * m.row + m.projection_size(rows) + m.saved_size(rows) + Impl::rounded(rows);
}

// A sequence of one step through the kernel of sequences, in the caller's memory.
template <class T>
void Recurrent<T>::step_rows(const T* x, int64_t rows, T* const* states, T* scratch,
                             T* output) const noexcept {
  const Impl& m = *impl;
  const int64_t slice = rows * m.row;
  ForwardArgs<T> a = m.prepared_weights;
  a.batch = rows, a.time = a.chunk = 1;
  a.split = Split::rows;
  a.x = x;
  a.x_batch_stride = a.x_time_stride = m.features;
  a.outputs = output;
  a.output_batch_stride = a.output_time_stride = m.units;
  a.slices = 2;
  for (int s = 0; s < m.cell.info.states; ++s, scratch += 2 * slice) {
    a.initial_state[s] = a.final_state[s] = states[s];
    a.state[s] = scratch;
  }
  if (m.cell.info.two_phases) {
    a.reset_state = scratch, scratch += slice;
    a.saved = scratch, scratch += m.saved_size(rows);
  }
  a.projection = scratch, scratch += m.projection_size(rows);
  a.row_ids = reinterpret_cast<int32_t*>(scratch);
  int32_t stop = 0;
  a.stop = &stop;
  FlushDenormals flush;
  m.cell.forward(a, 0, 1, nullptr);
}

template <class T>
void Recurrent<T>::get_step_state(const T* memory, int64_t batch, int state,
                                  T* value) const noexcept {
  for (int64_t b = 0; b < batch; ++b)
    std::copy_n(step_state(const_cast<T*>(memory), batch, state, b), impl->units,
                value + b * impl->units);
}

template <class T>
void Recurrent<T>::set_step_state(T* memory, int64_t batch, int state,
                                  const T* value) const noexcept {
  for (int64_t b = 0; b < batch; ++b)
    std::copy_n(value + b * impl->units, impl->units, step_state(memory, batch, state, b));
}

// --------------------------------------------------------------------------------------------------
// dense
namespace {

template <class T>
Buffer<T> packed_matrix(const T* matrix, int64_t rows, int64_t columns, bool transposed) {
  const auto& dense = kernels<T>().dense;
  Buffer<T> packed(dense.packed_size(rows, columns));
  dense.pack(matrix, rows, columns, transposed, packed.data());
  return packed;
}

template <class T>
void multiply(const DenseArgs<T>& args, int64_t n) {
  const double flops = 2.0 * n * args.K * args.columns;
  const int threads =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads_for(flops), n)));
  parallel(threads, flops, [&](int part, int parts, Barrier*) {
    kernels<T>().dense.multiply(args, n * part / parts, n * (part + 1) / parts);
  });
}

}  // namespace

template <class T>
struct Dense<T>::Impl {
  int64_t features, units;
  Buffer<T> packed, bias;
};
template <class T>
Dense<T>::Dense(int64_t features, int64_t units, const T* kernel, const T* bias)
    : impl(std::make_unique<Impl>()) {
  check_size("features", features, 1);
  check_size("units", units, 1);
  impl->features = features, impl->units = units;
  impl->packed = packed_matrix(kernel, features, units, false);
  if (bias) {
    impl->bias.resize(units);
    std::copy_n(bias, units, impl->bias.data());
  }
}
template <class T>
Dense<T>::~Dense() = default;
template <class T>
int64_t Dense<T>::features() const {
  return impl->features;
}
template <class T>
int64_t Dense<T>::units() const {
  return impl->units;
}
template <class T>
void Dense<T>::forward(const T* x, int64_t n, T* y) const {
  check_size("rows", n, 0);
  if (n)
    multiply<T>({x, impl->features, 1, impl->features, impl->units, impl->packed.data(),
                 impl->bias.data(), y},
                n);
}

template <class T>
void Dense<T>::step(const T* x, int64_t n, T* y) const noexcept {
  FlushDenormals flush;
  kernels<T>().dense.multiply({x, impl->features, 1, impl->features, impl->units,
                               impl->packed.data(), impl->bias.data(), y},
                              0, n);
}

template <class T>
void dense_backward(const T* x, const T* kernel, const T* d_y, int64_t n, int64_t features,
                    int64_t units, T* d_x, T* d_kernel, T* d_bias) {
  if (n == 0) {
    if (d_kernel) std::fill_n(d_kernel, features * units, T(0));
    if (d_bias) std::fill_n(d_bias, units, T(0));
    return;
  }
  if (d_x) {
    const Buffer<T> transposed = packed_matrix(kernel, units, features, true);
    multiply<T>({d_y, units, 1, units, features, transposed.data(), nullptr, d_x}, n);
  }
  if (d_kernel || d_bias) {
    const Buffer<T> packed = packed_matrix(d_y, n, units, false);
    if (d_kernel)
      multiply<T>({x, 1, features, n, units, packed.data(), nullptr, d_kernel}, features);
    if (d_bias) {  // ones^T d_y
      const T one = 1;
      multiply<T>({&one, 0, 0, n, units, packed.data(), nullptr, d_bias}, 1);
    }
  }
}

template <class T>
void activate(Activation kind, const T* x, int64_t n, T* y) noexcept {
  FlushDenormals flush;
  kernels<T>().activate(kind, x, n, y);
}

template <class T>
void activation(const std::string& name, const T* x, int64_t n, T* y) {
  activate(find_activation(name), x, n, y);
}
template <class T>
void activation_backward(const std::string& name, const T* x, const T* d_y, int64_t n, T* d_x) {
  kernels<T>().activate_backward(find_activation(name), x, d_y, n, d_x);
}

// The sums run in double and in order: many columns lose nothing, and a row has the same bits
// everywhere.
template <class T>
void softmax(const T* x, int64_t rows, int64_t columns, T* y) noexcept {
  for (; rows > 0; --rows, x += columns, y += columns) {
    const T most = *std::max_element(x, x + columns);
    for (int64_t i = 0; i < columns; ++i) y[i] = x[i] - most;
    activate(Activation::exponential, y, columns, y);
    double sum = 0;
    for (int64_t i = 0; i < columns; ++i) sum += y[i];
    for (int64_t i = 0; i < columns; ++i) y[i] = static_cast<T>(y[i] / sum);
  }
}
template <class T>
void log_softmax(const T* x, int64_t rows, int64_t columns, T* y) noexcept {
  constexpr int64_t kBlock = 64;
  T powers[kBlock];
  for (; rows > 0; --rows, x += columns, y += columns) {
    const T most = *std::max_element(x, x + columns);
    for (int64_t i = 0; i < columns; ++i) y[i] = x[i] - most;
    double sum = 0;
    for (int64_t i = 0; i < columns; i += kBlock) {
      const int64_t n = std::min(kBlock, columns - i);
      activate(Activation::exponential, y + i, n, powers);
      for (int64_t j = 0; j < n; ++j) sum += powers[j];
    }
    const T log_sum = static_cast<T>(std::log(sum));
    for (int64_t i = 0; i < columns; ++i) y[i] -= log_sum;
  }
}

#define TIDEGATE_INSTANTIATE(T)                                                                    \
  template class Context<T>;                                                                       \
  template class Recurrent<T>;                                                                     \
  template class Dense<T>;                                                                         \
  template void dense_backward<T>(const T*, const T*, const T*, int64_t, int64_t, int64_t, T*, T*, \
                                  T*);                                                             \
  template void activate<T>(Activation, const T*, int64_t, T*) noexcept;                           \
  template void softmax<T>(const T*, int64_t, int64_t, T*) noexcept;                               \
  template void log_softmax<T>(const T*, int64_t, int64_t, T*) noexcept;                           \
  template void activation<T>(const std::string&, const T*, int64_t, T*);                          \
  template void activation_backward<T>(const std::string&, const T*, const T*, int64_t, T*);
TIDEGATE_INSTANTIATE(float)
TIDEGATE_INSTANTIATE(double)
#undef TIDEGATE_INSTANTIATE

}  // namespace tidegate
