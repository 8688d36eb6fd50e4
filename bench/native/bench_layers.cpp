// The C++ library alone on the named shapes: sequences forward, forward and backward, in one
// direction and in both at once, and single steps.
//
//   bench_layers --benchmark_filter=lstm/training/small
#include <benchmark/benchmark.h>

#include <cmath>
#include <fstream>
#include <memory>
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

// One direction, or the two of a bidirectional layer.
void forward(benchmark::State& state, CellDescription cell, Shape s, int threads, int directions) {
  tidegate::set_num_threads(threads);
  const Weights weights(cell, s), back_weights(cell, s);
  const Layer layer = weights.layer(cell, s), back = back_weights.layer(cell, s);
  const auto x = random_values(s.batch * s.time * s.features, 1);
  std::vector<float> y(s.batch * s.time * s.units), y_back(y.size());
  tidegate::ForwardCall<float> call, back_call;
  call.layer = &layer, back_call.layer = &back;
  call.input.batch = s.batch, call.input.time = s.time, call.input.x = x.data();
  back_call.input = call.input, back_call.input.go_backwards = true;
  call.output.outputs = y.data(), back_call.output.outputs = y_back.data();
  for (auto _ : state)
    if (directions == 1)
      layer.forward(call.input, call.output);
    else
      Layer::forward_both(call, back_call);
  count_flops(state, cell, s, directions);
}

// What a training step costs: packing, forward, every gradient.
void training(benchmark::State& state, CellDescription cell, Shape s, int threads, int directions) {
  tidegate::set_num_threads(threads);
  const auto x = random_values(s.batch * s.time * s.features, 1);
  const auto d_y = random_values(s.batch * s.time * s.units, 1);
  struct Direction {
    Direction(const CellDescription& cell, const Shape& s) : weights(cell, s) {}
    Weights weights;
    std::vector<float> y, d_x, d_kernel, d_recurrent, d_bias;
    std::unique_ptr<Layer> layer;
    tidegate::Context<float> context;
    tidegate::ForwardCall<float> forward;
    tidegate::BackwardCall<float> backward;
  } all[2] = {{cell, s}, {cell, s}};
  for (Direction& d : all) {
    d.y.resize(d_y.size()), d.d_x.resize(x.size()), d.d_kernel.resize(d.weights.kernel.size());
    d.d_recurrent.resize(d.weights.recurrent_kernel.size());
    d.d_bias.resize(d.weights.bias.size());
    d.forward.context = &d.context, d.backward.context = &d.context;
    d.forward.input.batch = s.batch, d.forward.input.time = s.time, d.forward.input.x = x.data();
    d.forward.input.go_backwards = &d != all;
    d.forward.output.outputs = d.y.data(), d.backward.d_output.outputs = d_y.data();
    auto& gradients = d.backward.gradients;
    gradients.x = d.d_x.data(), gradients.bias = d.d_bias.data();
    gradients.kernel = d.d_kernel.data(), gradients.recurrent_kernel = d.d_recurrent.data();
  }
  for (auto _ : state) {
    for (Direction* d = all; d < all + directions; ++d) {
      d->context = {};
      d->layer.reset(new Layer(cell.name, s.features, s.units, d->weights.kernel.data(),
                               d->weights.recurrent_kernel.data(), d->weights.bias.data()));
      d->layer->prepare_training(d->weights.kernel.data(), d->weights.recurrent_kernel.data());
      d->forward.layer = d->backward.layer = d->layer.get();
    }
    if (directions == 1) {
      all->layer->forward(all->forward.input, all->forward.output, &all->context);
      all->layer->backward(all->context, all->backward.d_output, all->backward.gradients);
    } else {
      Layer::forward_both(all[0].forward, all[1].forward);
      Layer::backward_both(all[0].backward, all[1].backward);
    }
  }
  count_flops(state, cell, s, 3 * directions);
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
        for (int directions : {1, 2})
          for (int threads : {1, 2}) {
            const auto title = cell.name + (directions == 2 ? "/both-" : "/") + name + "/" +
                               s.name + "/" + std::to_string(threads);
            benchmark::RegisterBenchmark(title.c_str(), [=, run = run](benchmark::State& state) {
              run(state, cell, s, threads, directions);
            })->UseRealTime();
          }
    }
  benchmark::AddCustomContext("instruction set", tidegate::isa());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
