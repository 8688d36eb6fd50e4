// Optimizers: what one step makes of weights and their gradients. All arrays belong to the caller.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tidegate/error.hpp"

namespace tidegate {

constexpr int kMaxSlotsPerRule = 3;

struct RuleDescription {
  std::string name;  // "sgd", "adam", "rmsprop_momentum" and so on
  int slots;         // numbers kept per weight
  int coefficients;  // numbers per step; Keras's formulas name them (kernels/optimizer.hpp)
};
TIDEGATE_API std::vector<RuleDescription> update_rules();

template <class T>
struct VariableUpdate {
  int64_t size = 0;
  const T* gradient = nullptr;
  T* weights = nullptr;
  T* slots[kMaxSlotsPerRule] = {};
  bool decays = false;
};
// Of a step: w -= w * decay * decay_rate where the variable decays, then the rule.
template <class T>
struct UpdateStep {
  const T* coefficients = nullptr;
  T decay = 0, decay_rate = 0;
};
// One step of all variables, in one pass over each. The same bits for any number of threads.
// Throws Error for an unknown rule.
template <class T>
TIDEGATE_API void update(const std::string& rule, const UpdateStep<T>& step,
                         const VariableUpdate<T>* variables, int64_t count);

}  // namespace tidegate
