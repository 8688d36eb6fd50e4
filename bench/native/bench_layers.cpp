// The C++ library alone on the named shapes: sequences forward, forward and backward, and single steps.
//
//   bench_layers --benchmark_filter=lstm/training/small
#include <benchmark/benchmark.h>

#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tidegate/layers.hpp"
#include "tidegate/runtime.hpp"

namespace {

using tidegate::CellDescription;
using Layer = tidegate::Recurrent<float>;

struct Shape {
  std::string name;
  int64_t batch, time, features, units;
  bool is_step() const { return batch == 1 && time == 1; }
};

// The shapes that `tidegate bench` uses too: name, batch, time, features, units, reason.
std::vector<Shape> read_shapes() {
  std::vector<Shape> shapes;
  std::ifstream file(TIDEGATE_SHAPES_FILE);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    Shape s;
    if (line[0] != '#' && fields >> s.name >> s.batch >> s.time >> s.features >> s.units)
      shapes.push_back(s);
  }
  return shapes;
}

std::vector<float> random_values(int64_t count, float bound) {
  static std::mt19937 generator(7);
  std::uniform_real_distribution<float> uniform(-bound, bound);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(generator);
  return values;
}

struct Weights {
  Weights(const CellDescription& cell, const Shape& s)
      : columns(cell.gates * s.units),
        kernel(random_values(s.features * columns, 1 / std::sqrt(float(s.units)))),
        recurrent_kernel(random_values(s.units * columns, 1 / std::sqrt(float(s.units)))),
        bias(random_values(cell.bias_rows * columns, 0.1f)) {}
  Layer layer(const CellDescription& cell, const Shape& s) const {
    return Layer(cell.name, s.features, s.units, kernel.data(), recurrent_kernel.data(),
                 bias.data());
  }
  int64_t columns;
  std::vector<float> kernel, recurrent_kernel, bias;
};

// The multiplications and additions of the matrix products, per second.
void count_flops(benchmark::State& state, const CellDescription& cell, const Shape& s, int factor) {
  const double flops =
      2.0 * factor * cell.gates * s.units * (s.features + s.units) * s.batch * s.time;
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void forward(benchmark::State& state, CellDescription cell, Shape s, int threads) {
  tidegate::set_num_threads(threads);
  const Weights weights(cell, s);
  const Layer layer = weights.layer(cell, s);
  const auto x = random_values(s.batch * s.time * s.features, 1);
  std::vector<float> y(s.batch * s.time * s.units);
  tidegate::SequenceInput<float> input;
  input.batch = s.batch, input.time = s.time, input.x = x.data();
  tidegate::SequenceOutput<float> output;
  output.outputs = y.data();
  for (auto _ : state) layer.forward(input, output);
  count_flops(state, cell, s, 1);
}

// What a training step costs: packing, forward, every gradient.
void training(benchmark::State& state, CellDescription cell, Shape s, int threads) {
  tidegate::set_num_threads(threads);
  const Weights weights(cell, s);
  const auto x = random_values(s.batch * s.time * s.features, 1);
  const auto d_y = random_values(s.batch * s.time * s.units, 1);
  std::vector<float> y(d_y.size()), d_x(x.size()), d_kernel(weights.kernel.size());
  std::vector<float> d_recurrent(weights.recurrent_kernel.size()), d_bias(weights.bias.size());
  tidegate::SequenceInput<float> input;
  input.batch = s.batch, input.time = s.time, input.x = x.data();
  tidegate::SequenceOutput<float> output;
  output.outputs = y.data();
  tidegate::SequenceGradients<float> d_output;
  d_output.outputs = d_y.data();
  tidegate::LayerGradients<float> gradients;
  gradients.x = d_x.data(), gradients.kernel = d_kernel.data(), gradients.bias = d_bias.data();
  gradients.recurrent_kernel = d_recurrent.data();
  for (auto _ : state) {
    Layer layer = weights.layer(cell, s);
    layer.prepare_training(weights.kernel.data(), weights.recurrent_kernel.data());
    tidegate::Context<float> context;
    layer.forward(input, output, &context);
    layer.backward(context, d_output, gradients);
  }
  count_flops(state, cell, s, 3);
}

void step(benchmark::State& state, CellDescription cell, Shape s) {
  const Weights weights(cell, s);
  const Layer layer = weights.layer(cell, s);
  const auto x = random_values(s.features, 1);
  std::vector<float> y(s.units), memory(layer.step_memory(1));
  layer.reset_step(memory.data(), 1);
  for (auto _ : state) {
    layer.step(x.data(), memory.data(), 1, y.data());
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
      for (const auto& [name, run] : {std::pair{"forward", forward}, {"training", training}})
        for (int threads : {1, 2}) {
          const auto title = cell.name + "/" + name + "/" + s.name + "/" + std::to_string(threads);
          benchmark::RegisterBenchmark(
              title.c_str(),
              [=, run = run](benchmark::State& state) { run(state, cell, s, threads); })
              ->UseRealTime();
        }
    }
  benchmark::AddCustomContext("instruction set", tidegate::isa());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
