// The packed matrix products alone, as dense layers: forward, and backward with its packing.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "model_writer.hpp"
#include "tidegate/layers.hpp"
#include "tidegate/runtime.hpp"

namespace {

struct Shape {
  int64_t rows, features, units;
};

void forward(benchmark::State& state, Shape s, int threads) {
  tidegate::set_num_threads(threads);
  const auto kernel = writer::random_values(s.features * s.units, 1),
             x = writer::random_values(s.rows * s.features, 2);
  const tidegate::Dense<float> dense(s.features, s.units, kernel.data(), nullptr);
  std::vector<float> y(static_cast<size_t>(s.rows * s.units));
  for (auto _ : state) dense.forward(x.data(), s.rows, y.data());
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 * static_cast<double>(s.rows * s.features * s.units),
                         benchmark::Counter::kIsIterationInvariantRate);
}

void backward(benchmark::State& state, Shape s, int threads) {
  tidegate::set_num_threads(threads);
  const auto kernel = writer::random_values(s.features * s.units, 1),
             x = writer::random_values(s.rows * s.features, 2);
  const auto d_y = writer::random_values(s.rows * s.units, 3);
  std::vector<float> d_x(x.size()), d_kernel(kernel.size()), d_bias(static_cast<size_t>(s.units));
  for (auto _ : state)
    tidegate::dense_backward(x.data(), kernel.data(), d_y.data(), s.rows, s.features, s.units,
                             d_x.data(), d_kernel.data(), d_bias.data());
  state.counters["FLOP/s"] =
      benchmark::Counter(4.0 * static_cast<double>(s.rows * s.features * s.units),
                         benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Shape s : {Shape{512, 512, 512},
                        {64, 512, 2048},
                        {3200, 128, 512},
                        {32, 50, 200},
                        {1, 512, 2048},
                        {1024, 1024, 1024}})
    for (int threads : {1, 2}) {
      const std::string end = "/" + std::to_string(s.rows) + "/" + std::to_string(s.features) +
                              "/" + std::to_string(s.units) + "/" + std::to_string(threads);
      benchmark::RegisterBenchmark(("forward" + end).c_str(), [=](benchmark::State& state) {
        forward(state, s, threads);
      })->UseRealTime();
      benchmark::RegisterBenchmark(("backward" + end).c_str(), [=](benchmark::State& state) {
        backward(state, s, threads);
      })->UseRealTime();
    }
  benchmark::AddCustomContext("instruction set", tidegate::isa());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
