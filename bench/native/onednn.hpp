// The same layers by oneDNN (2.x or 3.x), called directly: every array that it reads or writes lies
// in the layout that its primitives ask for, in memory taken beforehand.
#pragma once

#include <omp.h>

#include <algorithm>
#include <initializer_list>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "problem.hpp"

class OneDnn {
  using Memory = dnnl::memory;
  using Arguments = std::unordered_map<int, Memory>;

 public:
  static std::string version() {
    const dnnl_version_t* v = dnnl::version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
           std::to_string(v->patch);
  }
  static bool has(const std::string& cell) { return cell != "dual_state_gru"; }

  // Training as in the benchmark of the same name, else inference with the weights laid out once.
  OneDnn(const Problem& p, bool training, int threads) : p(p), training(training) {
    omp_set_num_threads(threads);
    if (p.cell.name == "lstm")
      build<dnnl::lstm_forward, dnnl::lstm_backward>();
    else if (p.cell.name == "gru")
      build<dnnl::lbr_gru_forward, dnnl::lbr_gru_backward>();
    else if (p.cell.name == "gru_reset_before")
      build<dnnl::gru_forward, dnnl::gru_backward>();
    else
      build<dnnl::vanilla_rnn_forward, dnnl::vanilla_rnn_backward>(dnnl::algorithm::eltwise_tanh);
    for (const Move& move : place_weights) run(move);
    for (const Move& move : place_arrays) run(move);
  }

  void infer() {
    forward.execute(stream, forward_arguments);
    stream.wait();
  }

  // Weights into the layouts of both passes, forward, backward, gradients into the weights' layout.
  void train() {
    for (const Move& move : place_weights) run(move);
    forward.execute(stream, forward_arguments);
    for (Memory& sum : sums) clear(sum);  // backward adds to what is there
    backward.execute(stream, backward_arguments);
    for (const Move& move : take_weights) run(move);
    stream.wait();
  }

  Results results() {
    Results results(p);
    for (const Move& move : take_arrays) run(move);
    stream.wait();
    copy(y, results.y);
    if (!training) return results;
    copy(d_x, results.d_x);
    copy(d_kernel, results.d_kernel);
    copy(d_recurrent_kernel, results.d_recurrent_kernel);
    const auto* d_bias = static_cast<const float*>(this->d_bias.get_data_handle());
    for (int64_t i = 0; i < p.columns(); ++i) results.d_bias[i] = d_bias[i];
    if (p.cell.bias_rows == 2)  // both biases of z and r are one to oneDNN, those of h two
      for (int64_t i = 0, u = p.shape.units; i < 3 * u; ++i)
        results.d_bias[3 * u + i] = d_bias[i < 2 * u ? i : i + u];
    return results;
  }

 private:
  struct Move {
    dnnl::reorder reorder;
    Memory from, to;
  };

  void run(Move move) { move.reorder.execute(stream, move.from, move.to); }

  static void copy(const Memory& from, std::vector<float>& to) {
    std::copy_n(static_cast<const float*>(from.get_data_handle()), to.size(), to.data());
  }

  static void clear(Memory& memory) {
    std::fill_n(static_cast<char*>(memory.get_data_handle()), memory.get_desc().get_size(), 0);
  }

  using Tag = Memory::format_tag;
  static Memory::desc description(const Memory::dims& sizes, Tag tag) {
    return {sizes, Memory::data_type::f32, tag};
  }
  Memory user(const Memory::dims& sizes, Tag tag, const std::vector<float>* values = nullptr) {
    Memory memory(description(sizes, tag), engine);
    if (values)
      std::copy(values->begin(), values->end(), static_cast<float*>(memory.get_data_handle()));
    return memory;
  }

  // A place in layout `wanted` for what is in `from`; the same one where that fits.
  Memory in(const Memory& from, const Memory::desc& wanted, std::vector<Move>& moves) {
    if (from.get_desc() == wanted) return from;
    Memory to(wanted, engine);
    moves.push_back({dnnl::reorder(from, to), from, to});
    return to;
  }
  // The other way round.
  Memory out(const Memory& to, const Memory::desc& wanted, std::vector<Move>& moves) {
    if (to.get_desc() == wanted) return to;
    Memory from(wanted, engine);
    moves.push_back({dnnl::reorder(from, to), from, to});
    return from;
  }

  template <class Primitive, class... Arguments>
  auto describe_forward(const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
    return typename Primitive::primitive_desc(engine, arguments...);
#else
    return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), engine);
#endif
  }
  template <class Primitive, class Hint, class... Arguments>
  auto describe_backward(const Hint& forward, const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
    return typename Primitive::primitive_desc(engine, arguments..., forward);
#else
    return
        typename Primitive::primitive_desc(typename Primitive::desc(arguments...), engine, forward);
#endif
  }

  template <class Forward, class Backward, class... Activation>
  void build(Activation... activation) {
    constexpr auto direction = dnnl::rnn_direction::unidirectional_left2right;
    const Shape& s = p.shape;
    const int64_t gates = p.cell.gates, biases = p.cell.bias_rows == 2 ? 4 : gates;
    const Memory::dims x_sizes{s.time, s.batch, s.features}, y_sizes{s.time, s.batch, s.units},
        kernel_sizes{1, 1, s.features, gates, s.units},
        recurrent_sizes{1, 1, s.units, gates, s.units}, bias_sizes{1, 1, biases, s.units};
    const auto any_x = description(x_sizes, Tag::any), any_y = description(y_sizes, Tag::any),
               any_kernel = description(kernel_sizes, Tag::any),
               any_recurrent = description(recurrent_sizes, Tag::any),
               any_bias = description(bias_sizes, Tag::any);
    // Initial and final states, zeros and ignored. Inference leaves them out; so could training,
    // but then d_recurrent_kernel of LSTM and SimpleRNN comes out wrong (2.6 and 3.2).
    const Memory::desc state =
        training ? description({1, 1, s.batch, s.units}, Tag::ldnc) : Memory::desc();
    const auto add_states = [&](Arguments& to, std::initializer_list<int> names) {
      for (int name : names) {
        Memory zeros(state, engine);
        clear(zeros);
        to.insert({name, zeros});
      }
    };

    // Gates come in Keras's order in both, and z means the same.
    std::vector<float> bias(p.bias.begin(), p.bias.begin() + p.columns());
    if (p.cell.bias_rows == 2) {
      const float* recurrent = p.bias.data() + p.columns();
      for (int64_t i = 0; i < 2 * s.units; ++i) bias[i] += recurrent[i];
      bias.insert(bias.end(), recurrent + 2 * s.units, recurrent + 3 * s.units);
    }
    const Memory x = user(x_sizes, Tag::ntc, &p.x), d_y = user(y_sizes, Tag::ntc, &p.d_y),
                 kernel = user(kernel_sizes, Tag::ldigo, &p.kernel),
                 recurrent_kernel = user(recurrent_sizes, Tag::ldigo, &p.recurrent_kernel),
                 packed_bias = user(bias_sizes, Tag::ldgo, &bias);
    y = user(y_sizes, Tag::ntc);

    const auto kind =
        training ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    const auto f = [&] {
      if constexpr (std::is_same_v<Forward, dnnl::lstm_forward>)
        return describe_forward<Forward>(kind, direction, any_x, state, state, any_kernel,
                                         any_recurrent, any_bias, any_y, state, state);
      else
        return describe_forward<Forward>(kind, activation..., direction, any_x, state, any_kernel,
                                         any_recurrent, any_bias, any_y, state);
    }();
    forward = Forward(f);
    forward_arguments = {
        {DNNL_ARG_SRC_LAYER, in(x, f.src_layer_desc(), place_arrays)},
        {DNNL_ARG_WEIGHTS_LAYER, in(kernel, f.weights_layer_desc(), place_weights)},
        {DNNL_ARG_WEIGHTS_ITER, in(recurrent_kernel, f.weights_iter_desc(), place_weights)},
        {DNNL_ARG_BIAS, in(packed_bias, f.bias_desc(), place_weights)},
        {DNNL_ARG_DST_LAYER, out(y, f.dst_layer_desc(), take_arrays)}};
    if (!training) return;

    const auto b = [&] {
      constexpr auto kind = dnnl::prop_kind::backward;
      if constexpr (std::is_same_v<Forward, dnnl::lstm_forward>)
        return describe_backward<Backward>(f, kind, direction, any_x, state, state, any_kernel,
                                           any_recurrent, any_bias, any_y, state, state, any_x,
                                           state, state, any_kernel, any_recurrent, any_bias, any_y,
                                           state, state);
      else
        return describe_backward<Backward>(
            f, kind, activation..., direction, any_x, state, any_kernel, any_recurrent, any_bias,
            any_y, state, any_x, state, any_kernel, any_recurrent, any_bias, any_y, state);
    }();
    backward = Backward(b);
    add_states(forward_arguments,
               {DNNL_ARG_SRC_ITER, DNNL_ARG_SRC_ITER_C, DNNL_ARG_DST_ITER, DNNL_ARG_DST_ITER_C});
    const Memory workspace(f.workspace_desc(), engine);
    forward_arguments.insert({DNNL_ARG_WORKSPACE, workspace});
    d_x = user(x_sizes, Tag::ntc);
    d_kernel = user(kernel_sizes, Tag::ldigo);
    d_recurrent_kernel = user(recurrent_sizes, Tag::ldigo);
    d_bias = user(bias_sizes, Tag::ldgo);
    sums = {out(d_kernel, b.diff_weights_layer_desc(), take_weights),
            out(d_recurrent_kernel, b.diff_weights_iter_desc(), take_weights),
            out(d_bias, b.diff_bias_desc(), take_weights)};
    // Both passes must agree on everything but the weights' layouts.
    if (b.src_layer_desc() != f.src_layer_desc() || b.dst_layer_desc() != f.dst_layer_desc() ||
        b.bias_desc() != f.bias_desc())
      throw std::runtime_error("oneDNN: expected one layout of x, y and bias, got two");
    backward_arguments = forward_arguments;
    backward_arguments.at(DNNL_ARG_WEIGHTS_LAYER) =
        in(kernel, b.weights_layer_desc(), place_weights);
    backward_arguments.at(DNNL_ARG_WEIGHTS_ITER) =
        in(recurrent_kernel, b.weights_iter_desc(), place_weights);
    backward_arguments.insert(
        {{DNNL_ARG_DIFF_SRC_LAYER, out(d_x, b.diff_src_layer_desc(), take_arrays)},
         {DNNL_ARG_DIFF_WEIGHTS_LAYER, sums[0]},
         {DNNL_ARG_DIFF_WEIGHTS_ITER, sums[1]},
         {DNNL_ARG_DIFF_BIAS, sums[2]},
         {DNNL_ARG_DIFF_DST_LAYER, in(d_y, b.diff_dst_layer_desc(), place_arrays)}});
    add_states(backward_arguments, {DNNL_ARG_DIFF_SRC_ITER, DNNL_ARG_DIFF_SRC_ITER_C,
                                    DNNL_ARG_DIFF_DST_ITER, DNNL_ARG_DIFF_DST_ITER_C});
  }

  const Problem& p;
  const bool training;
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::primitive forward, backward;
  Arguments forward_arguments, backward_arguments;
  Memory y, d_x, d_kernel, d_recurrent_kernel, d_bias;
  std::vector<Memory> sums;
  std::vector<Move> place_arrays, place_weights, take_arrays, take_weights;
};
