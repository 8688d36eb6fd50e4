// Optimizers: finds the rule and shares the weights between the threads.
#include "tidegate/optimizer.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "team.hpp"

namespace tidegate {
namespace {

// Per weight, in the operations that threads_for counts: square root, division and memory take as
// long as so many multiply-adds.
constexpr double kFlopsPerWeight = 16;

template <class T>
const RuleKernel<T>& find_rule(const std::string& name) {
  std::string all;
  for (const auto& rule : kernels<T>().rules) {
    if (name == rule.info.name) return rule;
    all += (all.empty() ? "" : ", ") + std::string(rule.info.name);
  }
  throw Error("rule: expected one of " + all + ", got '" + name + "'");
}

}  // namespace

std::vector<RuleDescription> update_rules() {
  std::vector<RuleDescription> all;
  for (const auto& rule : kernels<float>().rules)
    all.push_back({rule.info.name, rule.info.slots, rule.info.coefficients});
  return all;
}

template <class T>
void update(const std::string& rule_name, const UpdateStep<T>& step,
            const VariableUpdate<T>* variables, int64_t count) {
  const RuleKernel<T>& rule = find_rule<T>(rule_name);
  int64_t total = 0;
  for (int64_t v = 0; v < count; ++v) total += variables[v].size;
  const double flops = kFlopsPerWeight * static_cast<double>(total);
  parallel(threads_for(flops), flops, [&](int thread, int threads, Barrier*) {
    // The variables one after the other are one range; every thread takes its part of it.
    const int64_t first = total * thread / threads, last = total * (thread + 1) / threads;
    int64_t start = 0;
    for (int64_t v = 0; v < count; start += variables[v++].size) {
      const VariableUpdate<T>& variable = variables[v];
      const int64_t from = std::max<int64_t>(0, first - start),
                    to = std::min(variable.size, last - start);
      if (from >= to) continue;
      UpdateArgs<T> u{};
      u.coefficients = step.coefficients;
      u.decay = variable.decays ? step.decay : T(0), u.decay_rate = step.decay_rate;
      u.gradient = variable.gradient, u.weights = variable.weights;
      std::copy_n(variable.slots, rule.info.slots, u.slots);
      rule.update(u, from, to);
    }
  });
}

template void update<float>(const std::string&, const UpdateStep<float>&,
                            const VariableUpdate<float>*, int64_t);
template void update<double>(const std::string&, const UpdateStep<double>&,
                             const VariableUpdate<double>*, int64_t);

}  // namespace tidegate
