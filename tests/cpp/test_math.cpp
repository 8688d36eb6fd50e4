// The error bounds that kernels/math.hpp states, in units in the last place against long double
// references.
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "tidegate/layers.hpp"
#include "tidegate/runtime.hpp"

namespace {

using Real = long double;
Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
Real hyperbolic_tangent(Real x) { return std::tanh(x); }
Real exponential(Real x) { return std::exp(x); }

// Every magnitude from 2^-20 to the range's end, densely where the functions bend, in an order that
// mixes the lanes.
template <class T>
std::vector<T> arguments(T range) {
  std::vector<T> xs;
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> exponent(-20, std::log2(double(range))),
      wide(-range, range), near(-10, 10);
  for (int i = 0; i < 200000; ++i) {
    xs.push_back(static_cast<T>((i % 2 ? 1 : -1) * std::exp2(exponent(random))));
    xs.push_back(static_cast<T>(wide(random)));
    xs.push_back(static_cast<T>(near(random)));
  }
  return xs;
}

template <class T>
double worst_ulp(const std::string& name, Real (*reference)(Real), T range) {
  const std::vector<T> xs = arguments(range);
  std::vector<T> ys(xs.size());
  tidegate::activation<T>(name, xs.data(), static_cast<int64_t>(xs.size()), ys.data());
  double worst = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    const Real exact = reference(xs[i]);
    const T rounded = static_cast<T>(exact);
    if (std::abs(rounded) < std::numeric_limits<T>::min())
      continue;  // denormal results may be flushed
    const Real ulp = std::abs(std::nextafter(rounded, T(0)) - rounded);
    worst = std::max(worst, static_cast<double>(std::abs(ys[i] - exact) / ulp));
  }
  return worst;
}

template <class T>
void hold_bounds(T exp_range) {
  const bool fused = std::string(tidegate::isa()) != "sse2";
  CHECK_NEAR(worst_ulp<T>("tanh", hyperbolic_tangent, T(30)), 0,
             sizeof(T) == 8 ? 4
             : fused        ? 4.5
                            : 5.5);
  CHECK_NEAR(worst_ulp<T>("sigmoid", sigmoid, exp_range), 0, 4);
  CHECK_NEAR(worst_ulp<T>("exponential", exponential, exp_range), 0, 4);
}

}  // namespace

TEST(float32_within_the_stated_ulp) { hold_bounds<float>(86); }
TEST(float64_within_the_stated_ulp) { hold_bounds<double>(700); }

TEST(limits_and_nan) {
  const float inf = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  const float xs[] = {inf, -inf, nan, 0.0f, -0.0f, 1e-30f};
  float y[6];
  tidegate::activation<float>("tanh", xs, 6, y);
  CHECK(y[0] == 1 && y[1] == -1 && std::isnan(y[2]) && y[3] == 0 && y[4] == 0 &&
        std::abs(y[5] / 1e-30f - 1) < 1e-6f);
  tidegate::activation<float>("sigmoid", xs, 6, y);
  CHECK(y[0] == 1 && y[1] >= 0 && y[1] < 1e-37f && std::isnan(y[2]) && y[3] == 0.5f);
}
