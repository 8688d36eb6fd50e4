// The optimizers' steps: one pass over gradient, weights and slots. Each rule is Keras's formula in
// Keras's order of operations, so that its float32 results are reached.
#pragma once

#include "../kernel_api.hpp"
#include "simd.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

// A rule has `info`, and step(g, s, c): updates the slots s and returns what is to be subtracted
// from the weights; c are the coefficients, named in the comment beside each rule.
template <class V>
TIDEGATE_INLINE void approach(V& average, V target, V fraction) {
  average = average + (target - average) * fraction;
}
template <class V>
TIDEGATE_INLINE void mix(V& average, V rho, V target, V rest) {
  average = average * rho + target * rest;
}

struct sgd {  // rate
  static constexpr RuleInfo info = {"sgd", 0, 1};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V*, const V* c) {
    return g * c[0];
  }
};
struct sgd_momentum {  // rate, momentum
  static constexpr RuleInfo info = {"sgd_momentum", 1, 2};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    s[0] = s[0] * c[1] - g * c[0];
    return -s[0];
  }
};
struct sgd_nesterov {  // rate, momentum
  static constexpr RuleInfo info = {"sgd_nesterov", 1, 2};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    const V scaled = g * c[0];
    s[0] = s[0] * c[1] - scaled;
    return scaled - s[0] * c[1];
  }
};
template <bool Momentum, bool Centered>
struct rmsprop {  // rate, rho, 1 - rho, epsilon, momentum
  static constexpr RuleInfo info = {
      Momentum   ? Centered ? "rmsprop_momentum_centered" : "rmsprop_momentum"
      : Centered ? "rmsprop_centered"
                 : "rmsprop",
      1 + Momentum + Centered, 4 + Momentum};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    mix(s[0], c[1], g * g, c[2]);
    V square = s[0];
    if constexpr (Centered) {
      V& average = s[1 + Momentum];
      mix(average, c[1], g, c[2]);
      square = square - average * average;
    }
    const V step = g * c[0] / sqrt(square + c[3]);
    if constexpr (Momentum) {
      s[1] = s[1] * c[4] + step;
      return s[1];
    } else {
      return step;
    }
  }
};
template <bool Amsgrad>
struct adam {  // bias-corrected rate, 1 - beta_1, 1 - beta_2, epsilon
  static constexpr RuleInfo info = {Amsgrad ? "adam_amsgrad" : "adam", 2 + Amsgrad, 4};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    approach(s[0], g, c[1]);
    approach(s[1], g * g, c[2]);
    if constexpr (Amsgrad) s[2] = larger(s[2], s[1]);
    return s[0] * c[0] / (sqrt(s[1 + Amsgrad]) + c[3]);
  }
};
// rate, 1 - beta_1, 1 - beta_2, epsilon, u of the next step, 1 - its product, 1 - u, 1 - product so
// far, 1 - beta_2^t
struct nadam {
  static constexpr RuleInfo info = {"nadam", 2, 9};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    approach(s[0], g, c[1]);
    approach(s[1], g * g, c[2]);
    const V mean = s[0] * c[4] / c[5] + g * c[6] / c[7];
    return mean * c[0] / (sqrt(s[1] / c[8]) + c[3]);
  }
};
struct adamax {  // rate, 1 - beta_1, beta_2, epsilon, 1 - beta_1^t
  static constexpr RuleInfo info = {"adamax", 2, 5};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    approach(s[0], g, c[1]);
    s[1] = larger(s[1] * c[2], abs(g));
    return s[0] * c[0] / ((s[1] + c[3]) * c[4]);
  }
};
struct adagrad {  // rate, epsilon
  static constexpr RuleInfo info = {"adagrad", 1, 2};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    s[0] = s[0] + g * g;
    return g * c[0] / sqrt(s[0] + c[1]);
  }
};
struct adadelta {  // rate, rho, 1 - rho, epsilon
  static constexpr RuleInfo info = {"adadelta", 2, 4};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    mix(s[0], c[1], g * g, c[2]);
    const V step = g * sqrt(s[1] + c[3]) / sqrt(s[0] + c[3]);
    mix(s[1], c[1], step * step, c[2]);
    return step * c[0];
  }
};
struct lion {  // rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2
  static constexpr RuleInfo info = {"lion", 1, 5};
  template <class V>
  TIDEGATE_INLINE static V step(V g, V* s, const V* c) {
    const V one = V::set(1), direction = s[0] * c[1] + g * c[2];
    s[0] = s[0] * c[3] + g * c[4];
    // NaN and zero stay what they are.
    return select(less(V::zero(), direction), one,
                  select(less(direction, V::zero()), -one, direction)) *
           c[0];
  }
};

template <class Rule, class T>
void update(const UpdateArgs<T>& u, int64_t first, int64_t last) {
  using V = FullVec<T>;
  constexpr int S = Rule::info.slots;
  V c[Rule::info.coefficients], slot[S > 0 ? S : 1];
  for (int i = 0; i < Rule::info.coefficients; ++i) c[i] = V::set(u.coefficients[i]);
  const V decay = V::set(u.decay), decay_rate = V::set(u.decay_rate);
  const auto weights_after = [&](V w, V g) {
    if (u.decay != 0) w = w - w * decay * decay_rate;
    return w - Rule::step(g, slot, c);
  };
  int64_t i = first;
  for (; i + V::width <= last; i += V::width) {
    for (int s = 0; s < S; ++s) slot[s] = V::load(u.slots[s] + i);
    weights_after(V::load(u.weights + i), V::load(u.gradient + i)).store(u.weights + i);
    for (int s = 0; s < S; ++s) slot[s].store(u.slots[s] + i);
  }
  if (i < last) {
    const int n = static_cast<int>(last - i);
    for (int s = 0; s < S; ++s) slot[s] = V::load_partial(u.slots[s] + i, n);
    weights_after(V::load_partial(u.weights + i, n), V::load_partial(u.gradient + i, n))
        .store_partial(u.weights + i, n);
    for (int s = 0; s < S; ++s) slot[s].store_partial(u.slots[s] + i, n);
  }
}

template <class Rule, class T>
constexpr RuleKernel<T> rule() {
  return {Rule::info, update<Rule, T>};
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
