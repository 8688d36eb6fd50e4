// What this machine can do at most, for `tidegate bench`: arithmetic that waits for nothing, and
// bare reads.
#pragma once

#include "simd.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

// Independent chains of multiply-adds in registers: latency 4 or 5 x 2 a cycle asks for up to 10,
// and 12 with their two constants still fit the 16 registers of AVX2. Returns the operations done,
// an FMA being two.
template <class T>
int64_t probe_multiply_add(int64_t iterations, T* sink) {
  using V = FullVec<T>;
  constexpr int chains = 12;
  const V factor = V::set(T(0.999)), term = V::set(T(0.001));
  V sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = V::set(T(i));
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = fma(sums[i], factor, term);
  }
  for (int i = 1; i < chains; ++i) sums[0] = sums[0] + sums[i];
  sums[0].store_partial(sink, 1);
  return 2 * chains * V::width * iterations;
}

// Reads x[0..n) again and again, adding it up so that no read can be left out. Returns the bytes
// read.
template <class T>
int64_t probe_read(const T* x, int64_t n, int64_t repeats, T* sink) {
  using V = FullVec<T>;
  constexpr int chains = 8;
  const int64_t block = chains * V::width;
  V sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = V::zero();
  for (int64_t k = 0; k < repeats; ++k) {
    for (int64_t at = 0; at + block <= n; at += block) {
#pragma GCC unroll 8
      for (int i = 0; i < chains; ++i) sums[i] = sums[i] + V::load(x + at + i * V::width);
    }
  }
  for (int i = 1; i < chains; ++i) sums[0] = sums[0] + sums[i];
  sums[0].store_partial(sink, 1);
  return static_cast<int64_t>(sizeof(T)) * (n / block * block) * repeats;
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
