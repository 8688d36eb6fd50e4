// One time step at batch 1: the engine's bare step, a Stream of a model of one layer, and streams
// of many rows.
//
//   bench_step --benchmark_filter='LSTM/.*/32/32'
//
// Units 8 to 40 with one input are what audio effects use (one sample in, one out).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model_writer.hpp"
#include "tidegate/tidegate.h"

namespace {

tidegate::Model model_of(const std::string& layer, int64_t features, int64_t units) {
  const std::string file = writer::stack({{layer, units}}, features);
  return tidegate::Model::load(file.data(), file.size());
}

void bare(benchmark::State& state, const std::string& layer, int64_t features, int64_t units) {
  const int gates = layer == "LSTM" ? 4 : 3;
  const auto kernel = writer::random_values(features * gates * units, 1);
  const auto recurrent = writer::random_values(units * gates * units, 2);
  const auto bias = writer::random_values(2 * gates * units, 3);
  const tidegate::Recurrent<float> engine(layer == "LSTM" ? "lstm" : "gru", features, units,
                                          kernel.data(), recurrent.data(), bias.data());
  const auto x = writer::random_values(features, 4);
  std::vector<float> y(static_cast<size_t>(units)),
      room(static_cast<size_t>(engine.step_memory(1)) + 16);
  void* aligned = room.data();
  size_t space = room.size() * sizeof(float);
  auto* memory = static_cast<float*>(std::align(64, 64, aligned, space));
  engine.reset_step(memory, 1);
  for (auto _ : state) {
    engine.step(x.data(), memory, 1, y.data());
    benchmark::ClobberMemory();
  }
}

void stream(benchmark::State& state, const std::string& layer, int64_t features, int64_t units) {
  tidegate::Stream stream(model_of(layer, features, units));
  const auto x = writer::random_values(features, 4);
  std::vector<float> y(static_cast<size_t>(units));
  for (auto _ : state) {
    stream.step(x.data(), y.data());
    benchmark::ClobberMemory();
  }
}

// Rows per second of a pool in which all streams step in random order, and of the engine on the
// same rows as one batch.
void pool(benchmark::State& state, int64_t units, int64_t rows, int threads) {
  tidegate::set_num_threads(threads);
  tidegate::StreamPool pool(model_of("LSTM", units, units), rows);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < rows; ++i) ids.push_back(pool.open());
  std::shuffle(ids.begin(), ids.end(), std::mt19937(1));
  const auto x = writer::random_values(rows * units, 4);
  std::vector<float> y(x.size());
  for (auto _ : state) pool.step(ids.data(), rows, x.data(), y.data());
  state.SetItemsProcessed(state.iterations() * rows);
}
void batch(benchmark::State& state, int64_t units, int64_t rows, int threads) {
  tidegate::set_num_threads(threads);
  const auto kernel = writer::random_values(units * 4 * units, 1),
             bias = writer::random_values(4 * units, 3);
  const tidegate::Recurrent<float> engine("lstm", units, units, kernel.data(), kernel.data(),
                                          bias.data());
  const auto x = writer::random_values(rows * units, 4);
  std::vector<float> y(x.size()), h(x.size()), c(x.size());
  tidegate::SequenceInput<float> input;
  input.batch = rows, input.time = 1, input.x = x.data(), input.initial_state[0] = h.data(),
  input.initial_state[1] = c.data();
  tidegate::SequenceOutput<float> output;
  output.outputs = y.data(), output.final_state[0] = h.data(), output.final_state[1] = c.data();
  for (auto _ : state) engine.forward(input, output);
  state.SetItemsProcessed(state.iterations() * rows);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<int64_t, int64_t>> shapes;
  for (int64_t units : {8, 12, 16, 20, 24, 32, 40}) shapes.push_back({1, units});
  for (int64_t units : {8, 16, 32, 64, 128, 256, 512}) shapes.push_back({units, units});
  for (const std::string layer : {"LSTM", "GRU"})
    for (const auto& [features, units] : shapes) {
      const std::string shape = "/" + std::to_string(features) + "/" + std::to_string(units);
      const auto add = [&, f = features, u = units](const char* name, auto run) {
        benchmark::RegisterBenchmark((layer + name + shape).c_str(),
                                     [=](benchmark::State& state) { run(state, layer, f, u); });
      };
      add("/bare", bare);
      add("/stream", stream);
    }
  for (int threads : {1, 2}) {
    const std::string end = "/128/4096/" + std::to_string(threads);
    benchmark::RegisterBenchmark(("LSTM/pool" + end).c_str(), [=](benchmark::State& s) {
      pool(s, 128, 4096, threads);
    })->UseRealTime();
    benchmark::RegisterBenchmark(("LSTM/batch" + end).c_str(), [=](benchmark::State& s) {
      batch(s, 128, 4096, threads);
    })->UseRealTime();
  }
  benchmark::AddCustomContext("instruction set", tidegate::isa());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
