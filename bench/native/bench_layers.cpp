// The C++ library on the named shapes: sequences forward, forward and backward, in one direction
// and in both at once (names that end in /both), and single steps.
// Where oneDNN is found, sequences by it too (names that end in /onednn), checked first.
//
//   bench_layers --benchmark_filter=lstm/training/small
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "problem.hpp"
#include "tidegate/layers.hpp"
#include "tidegate/runtime.hpp"
#ifdef TIDEGATE_BENCH_ONEDNN
#include "onednn.hpp"
#endif

namespace {

using tidegate::CellDescription;

// The multiplications and additions of the matrix products, per second.
void count_flops(benchmark::State& state, const CellDescription& cell, const Shape& s, int factor) {
  const double flops =
      2.0 * factor * cell.gates * s.units * (s.features + s.units) * s.batch * s.time;
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

class Tidegate {
  using Layer = tidegate::Recurrent<float>;

 public:
  Tidegate(const Problem& p, bool training, int threads) : p(p), results_(p) {
    tidegate::set_num_threads(threads);
    input.batch = p.shape.batch, input.time = p.shape.time, input.x = p.x.data();
    output.outputs = results_.y.data();
    d_output.outputs = p.d_y.data();
    gradients.x = results_.d_x.data(), gradients.kernel = results_.d_kernel.data();
    gradients.recurrent_kernel = results_.d_recurrent_kernel.data();
    gradients.bias = results_.d_bias.data();
    if (!training) packed = layer();
  }
  void infer() { packed->forward(input, output); }
  // What a training step costs: packing, forward, every gradient.
  void train() {
    const auto layer = this->layer();
    layer->prepare_training(p.kernel.data(), p.recurrent_kernel.data());
    tidegate::Context<float> context;
    layer->forward(input, output, &context);
    layer->backward(context, d_output, gradients);
  }
  const Results& results() const { return results_; }

 private:
  std::unique_ptr<Layer> layer() const {
    return std::make_unique<Layer>(p.cell.name, p.shape.features, p.shape.units, p.kernel.data(),
                                   p.recurrent_kernel.data(), p.bias.data());
  }
  const Problem& p;
  Results results_;
  std::unique_ptr<Layer> packed;
  tidegate::SequenceInput<float> input;
  tidegate::SequenceOutput<float> output;
  tidegate::SequenceGradients<float> d_output;
  tidegate::LayerGradients<float> gradients;
};

// The two directions of a bidirectional layer in one call.
class Both {
  using Layer = tidegate::Recurrent<float>;

 public:
  Both(const Problem& p, bool training, int threads) : p(p) {
    tidegate::set_num_threads(threads);
    for (Direction& d : directions) {
      d.results = std::make_unique<Results>(p);
      auto& input = d.forward.input;
      input.batch = p.shape.batch, input.time = p.shape.time, input.x = p.x.data();
      input.go_backwards = &d != directions;
      d.forward.output.outputs = d.results->y.data();
      d.backward.d_output.outputs = p.d_y.data();
      auto& gradients = d.backward.gradients;
      gradients.x = d.results->d_x.data(), gradients.kernel = d.results->d_kernel.data();
      gradients.recurrent_kernel = d.results->d_recurrent_kernel.data();
      gradients.bias = d.results->d_bias.data();
      if (!training) pack(d);
    }
  }
  void infer() { Layer::forward_both(directions[0].forward, directions[1].forward); }
  void train() {
    for (Direction& d : directions) {
      pack(d);
      d.layer->prepare_training(p.kernel.data(), p.recurrent_kernel.data());
      d.context = {};
      d.forward.context = &d.context, d.backward.context = &d.context;
    }
    infer();
    Layer::backward_both(directions[0].backward, directions[1].backward);
  }

 private:
  struct Direction {
    std::unique_ptr<Results> results;
    std::unique_ptr<Layer> layer;
    tidegate::Context<float> context;
    tidegate::ForwardCall<float> forward;
    tidegate::BackwardCall<float> backward;
  };
  void pack(Direction& d) {
    d.layer = std::make_unique<Layer>(p.cell.name, p.shape.features, p.shape.units, p.kernel.data(),
                                      p.recurrent_kernel.data(), p.bias.data());
    d.forward.layer = d.backward.layer = d.layer.get();
  }
  const Problem& p;
  Direction directions[2];
};

#ifdef TIDEGATE_BENCH_ONEDNN
// Ends the program where oneDNN computes something else. Rounding errors of a sum of n terms grow
// like sqrt(n); the longest sums are over inputs and state or, for weight gradients, over steps and
// rows. `tidegate bench` allows one program 64 eps sqrt(n) of an array's largest value; these are
// two.
void compare(const Problem& p, const Results& expected, const Results& got, bool training) {
  const Shape& s = p.shape;
  const double longest = static_cast<double>(std::max(s.features + s.units, s.batch * s.time));
  const double tolerance =
      2 * 64 * double{std::numeric_limits<float>::epsilon()} * std::sqrt(longest);
  const auto check = [&](const char* name, const std::vector<float>& a,
                         const std::vector<float>& b) {
    double largest = 0, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(double{a[i]}));
      // A NaN on either side must not pass for a small difference.
      difference = std::max(std::isfinite(a[i] - b[i]) ? std::abs(double{a[i]} - b[i]) : INFINITY,
                            difference);
    }
    if (difference <= tolerance * largest) return;
    std::fprintf(stderr,
                 "%s %s, %s: expected oneDNN within %.2g of tidegate's largest value, got %.2g\n",
                 p.cell.name.c_str(), s.name.c_str(), name, tolerance, difference / largest);
    std::exit(1);
  };
  check("y", expected.y, got.y);
  if (!training) return;
  check("d_x", expected.d_x, got.d_x);
  check("d_kernel", expected.d_kernel, got.d_kernel);
  check("d_recurrent_kernel", expected.d_recurrent_kernel, got.d_recurrent_kernel);
  check("d_bias", expected.d_bias, got.d_bias);
}

#endif

template <class Contestant>
void run(benchmark::State& state, const CellDescription& cell, const Shape& s, bool training,
         int threads) {
  const Problem p(cell, s);
  Contestant contestant(p, training, threads);
  const auto call = [training](auto& one) { training ? one.train() : one.infer(); };
  call(contestant);  // the first call finds memory that nobody has touched
#ifdef TIDEGATE_BENCH_ONEDNN
  if constexpr (std::is_same_v<Contestant, OneDnn>) {
    Tidegate judge(p, training, threads);
    call(judge);
    compare(p, judge.results(), contestant.results(), training);
  }
#endif
  for (auto _ : state) call(contestant);
  count_flops(state, cell, s, (training ? 3 : 1) * (std::is_same_v<Contestant, Both> ? 2 : 1));
}

void step(benchmark::State& state, const CellDescription& cell, const Shape& s) {
  const Problem p(cell, s);
  const tidegate::Recurrent<float> layer(cell.name, s.features, s.units, p.kernel.data(),
                                         p.recurrent_kernel.data(), p.bias.data());
  std::vector<float> y(s.units), memory(layer.step_memory(1));
  layer.reset_step(memory.data(), 1);
  for (auto _ : state) {
    layer.step(p.x.data(), memory.data(), 1, y.data());
    benchmark::ClobberMemory();
  }
  count_flops(state, cell, s, 1);
}

}  // namespace

int main(int argc, char** argv) {
  for (const CellDescription& cell : tidegate::cells())
    for (const Shape& s : read_shapes()) {
      if (s.is_step()) {
        benchmark::RegisterBenchmark((cell.name + "/step/" + s.name).c_str(),
                                     [=](benchmark::State& state) { step(state, cell, s); });
        continue;
      }
      for (bool training : {false, true})
        for (int threads : {1, 2}) {
          const auto title = cell.name + (training ? "/training/" : "/forward/") + s.name + "/" +
                             std::to_string(threads);
          const auto add = [&](const std::string& end, auto run) {
            benchmark::RegisterBenchmark((title + end).c_str(), [=](benchmark::State& state) {
              run(state, cell, s, training, threads);
            })->UseRealTime();
          };
          add("", run<Tidegate>);
          add("/both", run<Both>);
#ifdef TIDEGATE_BENCH_ONEDNN
          if (OneDnn::has(cell.name)) add("/onednn", run<OneDnn>);
#endif
        }
    }
  benchmark::AddCustomContext("instruction set", tidegate::isa());
#ifdef TIDEGATE_BENCH_ONEDNN
  benchmark::AddCustomContext("oneDNN", OneDnn::version());
#endif
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
