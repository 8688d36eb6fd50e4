// Activation functions, lane by lane: the same bits whatever vector a value travels in (on one
// instruction set).
//
// Errors against a long double reference (tests/cpp/test_math.cpp holds them to these bounds where
// results are normal numbers), in units in the last place: sigmoid and exp 4, float64 tanh 4,
// float32 tanh 4.5 (5.5 on SSE2, which has no fused multiply-add). NaN gives NaN.
#pragma once

#include <cmath>

#include "../kernel_api.hpp"
#include "simd.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

template <class V, int N>
TIDEGATE_INLINE V polynomial(V x,
                             const typename V::scalar (&c)[N]) {  // c[0] x^(N-1) + ... + c[N-1]
  V y = V::set(c[0]);
#pragma GCC unroll 12
  for (int i = 1; i < N; ++i) y = fma(y, x, V::set(c[i]));
  return y;
}

// exp(x) = scale * (1 + p) with scale = 2^k, p = expm1(r), r = x - k ln 2 in [-ln 2 / 2, ln 2 / 2]
// (Cody and Waite). k is rounded by adding a number whose last mantissa bit is worth one; its low
// bits then hold k + bias, which shifted into the exponent is 2^k. x must lie where 2^k is normal.
// p = r + r^2 q(r), q the minimax polynomial.
template <class V>
struct ExpParts {
  V scale, p;
};
template <class P>
TIDEGATE_INLINE ExpParts<Vec<P>> exp_parts(Vec<P> x) {
  using V = Vec<P>;
  using T = typename V::scalar;
  if constexpr (sizeof(T) == 4) {
    const V magic = V::set(12582912.0f + 127.0f);  // 1.5 * 2^23 + the exponent's bias
    const V t = fma(x, V::set(1.44269504089f), magic);
    const V k = t - magic;
    V r = fma(k, V::set(-0.693359375f), x);
    r = fma(k, V::set(2.12194440e-4f), r);
    const V r2 = r * r;
    const V low = fma(V::set(0.16666576845994f), r, V::set(0.5f));
    const V high = fma(V::set(0.00836320297158f), r, V::set(0.04166655443769f));
    const V q = fma(fma(V::set(0.00139262132165f), r2, high), r2, low);
    return {from_bits<P>(bits(t) << 23), fma(q, r2, r)};
  } else {
    const V magic = V::set(6755399441055744.0 + 1023.0);  // 1.5 * 2^52 + the exponent's bias
    const V t = fma(x, V::set(1.4426950408889634074), magic);
    const V k = t - magic;
    V r = fma(k, V::set(-6.93145751953125e-1), x);
    r = fma(k, V::set(-1.42860682030941723212e-6), r);
    constexpr T c[] = {2.5100424157005066788e-8, 2.7620138719733995569e-7, 2.7557268378684192873e-6,
                       2.4801521190217727651e-5, 1.9841269863105968749e-4, 1.3888888917281793308e-3,
                       8.3333333333300513464e-3, 4.1666666666623991516e-2, 1.6666666666666667456e-1,
                       5.0000000000000010262e-1};
    return {from_bits<P>(bits(t) << 52), fma(polynomial(r, c), r * r, r)};
  }
}

template <class T>
constexpr T kExpLimit = sizeof(T) == 4 ? T(87) : T(708);  // 2^k stays normal on both sides

template <class V>
TIDEGATE_INLINE V clamp_exp(V x) {
  using T = typename V::scalar;
  return at_least(at_most(x, V::set(kExpLimit<T>)), V::set(-kExpLimit<T>));
}

// 1 / (1 + exp(-x)). As exp_parts, but with -exp(-x) throughout, which spares the negations: the
// constant's last bits also set the sign, scale = -2^k, s = x + k ln 2 = -r and p = -expm1(r) = s +
// s^2 q, q's signs alternating.
template <class P>
TIDEGATE_INLINE Vec<P> sigmoid(Vec<P> x) {
  using V = Vec<P>;
  using T = typename V::scalar;
  const V one = V::set(1);
  x = clamp_exp(x);
  if constexpr (sizeof(T) == 4) {
    const V magic = V::set(12582912.0f + 127.0f + 256.0f);
    const V t = fma(x, V::set(-1.44269504089f), magic);
    const V k = t - magic;
    const V scale = from_bits<P>(bits(t) << 23);
    const V s = fma(k, V::set(-2.12194440e-4f), fma(k, V::set(0.693359375f), x));
    const V low = fma(V::set(0.16666576845994f), s, V::set(-0.5f));
    const V high = fma(V::set(0.00836320297158f), s, V::set(-0.04166655443769f));
    const V s2 = s * s;
    const V q = fma(fma(V::set(-0.00139262132165f), s2, high), s2, low);
    return one / fma(scale, fma(q, s2, s), one - scale);
  } else {
    const V magic = V::set(6755399441055744.0 + 1023.0 + 2048.0);
    const V t = fma(x, V::set(-1.4426950408889634074), magic);
    const V k = t - magic;
    const V scale = from_bits<P>(bits(t) << 52);
    const V s = fma(k, V::set(1.42860682030941723212e-6), fma(k, V::set(6.93145751953125e-1), x));
    constexpr T c[] = {2.5100424157005066788e-8, -2.7620138719733995569e-7,
                       2.7557268378684192873e-6, -2.4801521190217727651e-5,
                       1.9841269863105968749e-4, -1.3888888917281793308e-3,
                       8.3333333333300513464e-3, -4.1666666666623991516e-2,
                       1.6666666666666667456e-1, -5.0000000000000010262e-1};
    return one / fma(scale, fma(polynomial(s, c), s * s, s), one - scale);
  }
}

template <class V>
TIDEGATE_INLINE V expm1_clamped(V x) {
  const auto e = exp_parts(clamp_exp(x));
  return fma(e.scale, e.p, e.scale - V::set(1));
}

template <class P>
TIDEGATE_INLINE Vec<P> tanh(Vec<P> x) {
  using V = Vec<P>;
  using T = typename V::scalar;
  const V one = V::set(1);
  if constexpr (sizeof(T) == 4) {
    // x P(x^2) / Q(x^2), minimax on |x| <= 9.02 with coefficients searched for the least error of
    // this very evaluation: 4.4 ulp with fused multiply-add, 5.3 without, all of it the rounding of
    // p, q, x p and the quotient near 1; beyond, tanh rounds to 1.
    x = at_least(at_most(x, V::set(9.02f)), V::set(-9.02f));
    const V s = x * x, s2 = s * s;
    const V p = fma(
        fma(V::set(9.70700942e-09f), s2, fma(V::set(1.50013802e-05f), s, V::set(0.00254648179f))),
        s2, fma(V::set(0.0975125507f), s, V::set(0.728808761f)));
    const V q = fma(
        fma(V::set(5.65699906e-07f), s2, fma(V::set(0.000239274406f), s, V::set(0.0188550614f))),
        s2, fma(V::set(0.340448678f), s, V::set(0.728808761f)));
    return at_least(at_most(x * p / q, one), -one);
  } else {
    // With t = expm1(-2|x|) in (-1, 0]: tanh|x| = -t / (t + 2), no cancellation anywhere.
    const V t = expm1_clamped(V::set(-2) * abs(x));
    const V y = -t / (t + V::set(2));
    const auto sign = bits(V::set(T(-0.0)));
    return from_bits<P>(bits(y) | (bits(x) & sign));
  }
}

// Over the whole range: two factors exp(x / 2), so that neither 2^k leaves the normal numbers
// before the product does.
template <class V>
TIDEGATE_INLINE V exponential(V x) {
  using T = typename V::scalar;
  const V limit = V::set(2 * kExpLimit<T>);
  const auto e = exp_parts(V::set(T(0.5)) * at_least(at_most(x, limit), -limit));
  const V root = fma(e.scale, e.p, e.scale);
  return root * root;
}

template <class V, class F>
TIDEGATE_INLINE V lanewise(V x, F f) {  // for the rare functions that no vector formula here covers
  alignas(64) typename V::scalar lanes[V::width];
  x.store(lanes);
  for (auto& lane : lanes) lane = f(lane);
  return V::load(lanes);
}

// log(1 + e) for e in [0, 1]: log(u) e / (u - 1), u = 1 + e rounded, repairs the rounding of u
// (HP-15C trick).
template <class P>
TIDEGATE_INLINE Vec<P> log1p_unit(Vec<P> e) {
  const Vec<P> one = Vec<P>::set(1), u = one + e;
  const Vec<P> y = Vec<P>{Eigen::internal::plog(u.p)} * (e / (u - one));
  return select<P>(less(one, u), y, e);
}

template <class V>
TIDEGATE_INLINE V softplus(V x) {  // log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))
  const auto e = exp_parts(clamp_exp(-abs(x)));
  return at_least(x, V::zero()) + log1p_unit(fma(e.scale, e.p, e.scale));
}

constexpr double kSeluScale = 1.05070098735548049342, kSeluAlpha = 1.67326324235437728481;

// Every elementwise activation Keras names. Kept out of line: one copy a vector type, not one a
// cell.
template <class V>
__attribute__((noinline)) V activate(Activation kind, V x) {
  using P = typename V::packet;
  using T = typename V::scalar;
  const V zero = V::zero(), one = V::set(1);
  switch (kind) {
    case Activation::linear:
      return x;
    case Activation::relu:
      return at_least(x, zero);
    case Activation::relu6:
      return at_most(at_least(x, zero), V::set(6));
    case Activation::leaky_relu:
      return select<P>(less(x, zero), x * V::set(T(0.2)), x);
    case Activation::elu:
    case Activation::celu:
      return select<P>(less(x, zero), expm1_clamped(at_most(x, zero)), x);
    case Activation::selu:
      return V::set(T(kSeluScale)) *
             select<P>(less(x, zero), V::set(T(kSeluAlpha)) * expm1_clamped(at_most(x, zero)), x);
    case Activation::gelu:
      return V::set(T(0.5)) * x * (one + lanewise(x * V::set(T(0.70710678118654752440)), [](T v) {
                                     return std::erf(v);
                                   }));
    case Activation::gelu_tanh: {
      const V inner = V::set(T(0.79788456080286535588)) * fma(V::set(T(0.044715)) * x, x * x, x);
      return V::set(T(0.5)) * x * (one + tanh(inner));
    }
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::hard_sigmoid:
      return at_most(at_least(x + V::set(3), zero), V::set(6)) / V::set(6);
    case Activation::hard_sigmoid_keras2:
      return at_most(at_least(fma(x, V::set(T(0.2)), V::set(T(0.5))), zero), one);
    case Activation::hard_silu:
      return x * (at_most(at_least(x + V::set(3), zero), V::set(6)) / V::set(6));
    case Activation::hard_tanh:
      return at_most(at_least(x, -one), one);
    case Activation::tanh:
      return tanh(x);
    case Activation::softplus:
      return softplus(x);
    case Activation::softsign:
      return x / (one + abs(x));
    case Activation::exponential:
      return exponential(x);
    case Activation::mish:
      return x * tanh(softplus(x));
    case Activation::log_sigmoid:
      return -softplus(-x);
    case Activation::tanh_shrink:
      return x - tanh(x);
  }
  return x;
}

// d activation / d x at x. At kinks the value Keras's back-ends give: 0 at a relu's corner.
template <class V>
__attribute__((noinline)) V slope(Activation kind, V x) {
  using P = typename V::packet;
  using T = typename V::scalar;
  const V zero = V::zero(), one = V::set(1);
  const auto inside = [&](T low, T high, V value) {
    return select<P>(less(V::set(low), x) & less(x, V::set(high)), value, zero);
  };
  switch (kind) {
    case Activation::linear:
      return one;
    case Activation::relu:
      return select<P>(less(zero, x), one, zero);
    case Activation::relu6:
      return inside(0, 6, one);
    case Activation::leaky_relu:
      return select<P>(less(x, zero), V::set(T(0.2)), one);
    case Activation::elu:
    case Activation::celu:
      return select<P>(less(x, zero), expm1_clamped(at_most(x, zero)) + one, one);
    case Activation::selu:
      return V::set(T(kSeluScale)) *
             select<P>(less(x, zero),
                       V::set(T(kSeluAlpha)) * (expm1_clamped(at_most(x, zero)) + one), one);
    case Activation::gelu: {
      const V cdf = V::set(T(0.5)) * (one + lanewise(x * V::set(T(0.70710678118654752440)),
                                                     [](T v) { return std::erf(v); }));
      const auto e = exp_parts(clamp_exp(V::set(T(-0.5)) * x * x));
      return fma(x * V::set(T(0.39894228040143267794)), fma(e.scale, e.p, e.scale), cdf);
    }
    case Activation::gelu_tanh: {
      const V k = V::set(T(0.79788456080286535588));
      const V t = tanh(k * fma(V::set(T(0.044715)) * x, x * x, x));
      const V d_inner = k * fma(V::set(T(3 * 0.044715)) * x, x, one);
      return V::set(T(0.5)) * ((one + t) + x * (one - t * t) * d_inner);
    }
    case Activation::silu: {
      const V s = sigmoid(x);
      return s * fma(x, one - s, one);
    }
    case Activation::sigmoid: {
      const V s = sigmoid(x);
      return s * (one - s);
    }
    case Activation::hard_sigmoid:
      return inside(-3, 3, V::set(T(1) / 6));
    case Activation::hard_sigmoid_keras2:
      return inside(T(-2.5), T(2.5), V::set(T(0.2)));
    case Activation::hard_silu:
      return select<P>(less(x, V::set(3)), inside(-3, 3, fma(x, V::set(T(1) / 3), V::set(T(0.5)))),
                       one);
    case Activation::hard_tanh:
      return inside(-1, 1, one);
    case Activation::tanh: {
      const V t = tanh(x);
      return one - t * t;
    }
    case Activation::softplus:
      return sigmoid(x);
    case Activation::softsign: {
      const V d = one + abs(x);
      return one / (d * d);
    }
    case Activation::exponential:
      return exponential(x);
    case Activation::mish: {
      const V t = tanh(softplus(x));
      return fma(x * (one - t * t), sigmoid(x), t);
    }
    case Activation::log_sigmoid:
      return sigmoid(-x);
    case Activation::tanh_shrink: {
      const V t = tanh(x);
      return t * t;
    }
  }
  return one;
}

// How a cell calls its two activations. `keep` is what forward saves of a gate for backward;
// `value` and `slope_of` give the gate and its derivative from what was kept.
struct DefaultActivations {  // tanh and sigmoid: keep the gate, whose derivative follows from it
  static constexpr bool keeps_gates = true;
  template <class V>
  TIDEGATE_INLINE V act(V z) const {
    return tanh(z);
  }
  template <class V>
  TIDEGATE_INLINE V rec(V z) const {
    return sigmoid(z);
  }
  template <class V>
  TIDEGATE_INLINE V keep(V, V gate) const {
    return gate;
  }
  template <class V>
  TIDEGATE_INLINE V act_value(V kept) const {
    return kept;
  }
  template <class V>
  TIDEGATE_INLINE V rec_value(V kept) const {
    return kept;
  }
  template <class V>
  TIDEGATE_INLINE V act_slope(V kept) const {
    return V::set(1) - kept * kept;
  }
  template <class V>
  TIDEGATE_INLINE V rec_slope(V kept) const {
    return kept * (V::set(1) - kept);
  }
  template <class V>
  TIDEGATE_INLINE V slope_at(V, V value) const {
    return V::set(1) - value * value;
  }
};
struct NamedActivations {  // any other pair: keep the pre-activation
  static constexpr bool keeps_gates = false;
  Activation a, r;
  template <class V>
  TIDEGATE_INLINE V act(V z) const {
    return activate(a, z);
  }
  template <class V>
  TIDEGATE_INLINE V rec(V z) const {
    return activate(r, z);
  }
  template <class V>
  TIDEGATE_INLINE V keep(V z, V) const {
    return z;
  }
  template <class V>
  TIDEGATE_INLINE V act_value(V kept) const {
    return activate(a, kept);
  }
  template <class V>
  TIDEGATE_INLINE V rec_value(V kept) const {
    return activate(r, kept);
  }
  template <class V>
  TIDEGATE_INLINE V act_slope(V kept) const {
    return slope(a, kept);
  }
  template <class V>
  TIDEGATE_INLINE V rec_slope(V kept) const {
    return slope(r, kept);
  }
  template <class V>
  TIDEGATE_INLINE V slope_at(V z, V) const {
    return slope(a, z);
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
