// How long a single Stream::step takes, each one timed: p50, p99, p99.9, the longest, and a
// histogram.
//
//   bench_latency [STEPS]
//
// What the machine does meanwhile (interrupts, other programs) is in the longest ones; the clock
// itself is measured too.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "model_writer.hpp"
#include "tidegate/tidegate.h"

namespace {

using Clock = std::chrono::steady_clock;

template <class F>
std::vector<double> times(int64_t steps, F step) {
  std::vector<double> all(static_cast<size_t>(steps));
  for (int64_t i = 0; i < steps / 10; ++i) step();
  for (double& time : all) {
    const auto start = Clock::now();
    step();
    time = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  }
  std::sort(all.begin(), all.end());
  return all;
}

void report(const std::string& name, const std::vector<double>& sorted) {
  const auto at = [&](double share) {
    return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
  };
  std::printf("%-26s %9.0f %9.0f %9.0f %9.0f   %5.2f\n", name.c_str(), at(0.5), at(0.99), at(0.999),
              sorted.back(), at(0.999) / at(0.5));
}

void histogram(const std::vector<double>& sorted) {
  const double first = sorted[sorted.size() / 2] * 0.75;
  size_t from = 0;
  for (double edge = first; from < sorted.size(); edge *= 1.25) {
    const size_t to =
        static_cast<size_t>(std::upper_bound(sorted.begin(), sorted.end(), edge) - sorted.begin());
    if (to > from) {
      const double share = static_cast<double>(to - from) / static_cast<double>(sorted.size());
      std::printf("  up to %9.0f ns %10.4f %% %s\n", edge, 100 * share,
                  std::string(static_cast<size_t>(share * 60), '#').c_str());
    }
    from = to;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t steps = argc > 1 ? std::atoll(argv[1]) : 200000;
  if (steps < 1000) return std::printf("bench_latency: expected at least 1000 steps\n"), 1;
  std::printf("%s, %lld steps each; nanoseconds\n%-26s %9s %9s %9s %9s   p99.9/p50\n",
              tidegate::isa(), static_cast<long long>(steps), "", "p50", "p99", "p99.9", "longest");
  report("the clock", times(steps, [] {}));
  std::vector<double> shown;
  for (const auto& [name, features, layers] :
       std::vector<std::tuple<std::string, int64_t, std::vector<writer::Layer>>>{
           {"LSTM 1 -> 20, Dense 1", 1, {{"LSTM", 20}, {"Dense", 1}}},
           {"GRU 1 -> 40, Dense 1", 1, {{"GRU", 40}, {"Dense", 1}}},
           {"LSTM 32 -> 32", 32, {{"LSTM", 32}}},
           {"LSTM 64 -> 64 -> 64", 64, {{"LSTM", 64}, {"LSTM", 64}}},
           {"LSTM 128 -> 128", 128, {{"LSTM", 128}}},
           {"GRU 256 -> 256", 256, {{"GRU", 256}}}}) {
    const std::string file = writer::stack(layers, features);
    tidegate::Stream stream(tidegate::Model::load(file.data(), file.size()));
    const auto x = writer::random_values(features, 1);
    std::vector<float> y(static_cast<size_t>(stream.output_size()));
    const auto sorted = times(steps, [&] { stream.step(x.data(), y.data()); });
    report(name, sorted);
    if (shown.empty()) shown = sorted;
  }
  std::printf("\nLSTM 1 -> 20, Dense 1:\n");
  histogram(shown);
}
