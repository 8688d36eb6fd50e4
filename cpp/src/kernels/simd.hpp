// One SIMD vector, and nothing else: the only kernel header that includes Eigen.
//
// Eigen's packet functions follow the compiler's instruction-set flags, so one source gives SSE2,
// AVX2, AVX-512 and NEON code. The build renames namespace Eigen per instruction set (see README.md
// here).
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

#define TIDEGATE_INLINE inline __attribute__((always_inline))

// A vector of one packet. `width` lanes of `scalar`.
template <class P>
struct Vec {
  using packet = P;
  using scalar = typename Eigen::internal::unpacket_traits<P>::type;
  static constexpr int width = Eigen::internal::unpacket_traits<P>::size;
  P p;
  TIDEGATE_INLINE static Vec set(scalar x) { return {Eigen::internal::pset1<P>(x)}; }
  TIDEGATE_INLINE static Vec zero() { return {Eigen::internal::pzero(P())}; }
  TIDEGATE_INLINE static Vec load(const scalar* from) { return {Eigen::internal::ploadu<P>(from)}; }
  // The first n lanes of `from`, zeros behind them; reads nothing beyond from[n-1].
  TIDEGATE_INLINE static Vec load_partial(const scalar* from, int n) {
    alignas(64) scalar lanes[width] = {};
    for (int i = 0; i < n; ++i) lanes[i] = from[i];
    return load(lanes);
  }
  TIDEGATE_INLINE void store(scalar* to) const { Eigen::internal::pstoreu(to, p); }
  // Writes only the first n lanes.
  TIDEGATE_INLINE void store_partial(scalar* to, int n) const {
    alignas(64) scalar lanes[width];
    store(lanes);
    for (int i = 0; i < n; ++i) to[i] = lanes[i];
  }
};

// The widest vector of the instruction set, and half of it for the tail of the units (on
// instruction sets whose vectors cannot be halved both are the same type).
template <class T>
using FullVec = Vec<typename Eigen::internal::packet_traits<T>::type>;
#if defined(__AVX__)
template <class T>
using HalfVec = Vec<typename Eigen::internal::unpacket_traits<typename FullVec<T>::packet>::half>;
#else
template <class T>
using HalfVec = FullVec<T>;
#endif

template <class P>
TIDEGATE_INLINE Vec<P> operator+(Vec<P> a, Vec<P> b) {
  return {Eigen::internal::padd(a.p, b.p)};
}
template <class P>
TIDEGATE_INLINE Vec<P> operator-(Vec<P> a, Vec<P> b) {
  return {Eigen::internal::psub(a.p, b.p)};
}
template <class P>
TIDEGATE_INLINE Vec<P> operator*(Vec<P> a, Vec<P> b) {
  return {Eigen::internal::pmul(a.p, b.p)};
}
template <class P>
TIDEGATE_INLINE Vec<P> operator/(Vec<P> a, Vec<P> b) {
  return {Eigen::internal::pdiv(a.p, b.p)};
}
template <class P>
TIDEGATE_INLINE Vec<P> operator-(Vec<P> a) {
  return {Eigen::internal::pnegate(a.p)};
}
// a * b + c: one rounding where the instruction set has a fused multiply-add, two on SSE2.
template <class P>
TIDEGATE_INLINE Vec<P> fma(Vec<P> a, Vec<P> b, Vec<P> c) {
  return {Eigen::internal::pmadd(a.p, b.p, c.p)};
}
template <class P>
TIDEGATE_INLINE Vec<P> abs(Vec<P> a) {
  return {Eigen::internal::pabs(a.p)};
}
// Correctly rounded: the build turns off Eigen's approximation (EIGEN_FAST_MATH).
template <class P>
TIDEGATE_INLINE Vec<P> sqrt(Vec<P> a) {
  return {Eigen::internal::psqrt(a.p)};
}

// A square block of width vectors, rows to columns.
template <class P>
TIDEGATE_INLINE void transpose(Vec<P> (&rows)[Vec<P>::width]) {
  Eigen::internal::PacketBlock<P, Vec<P>::width> block;
#pragma GCC unroll 16
  for (int i = 0; i < Vec<P>::width; ++i) block.packet[i] = rows[i].p;
  Eigen::internal::ptranspose(block);
#pragma GCC unroll 16
  for (int i = 0; i < Vec<P>::width; ++i) rows[i].p = block.packet[i];
}

// Lane-wise integer view: GCC and Clang give every packet type of float and double vector
// operators.
template <class P>
struct Bits {
  using scalar = typename Vec<P>::scalar;
  using lane = std::conditional_t<sizeof(scalar) == 4, int32_t, int64_t>;
  typedef lane type __attribute__((vector_size(sizeof(P))));
  typedef scalar real __attribute__((vector_size(sizeof(P))));
};
template <class P>
TIDEGATE_INLINE typename Bits<P>::type bits(Vec<P> a) {
  return (typename Bits<P>::type)a.p;
}
template <class P>
TIDEGATE_INLINE Vec<P> from_bits(typename Bits<P>::type b) {
  return {(P)b};
}

// All-ones lanes where the comparison holds (never for NaN).
template <class P>
TIDEGATE_INLINE typename Bits<P>::type less(Vec<P> a, Vec<P> b) {
  return (typename Bits<P>::type)((typename Bits<P>::real)a.p < (typename Bits<P>::real)b.p);
}
template <class P>
TIDEGATE_INLINE Vec<P> select(typename Bits<P>::type mask, Vec<P> yes, Vec<P> no) {
  return from_bits<P>((mask & bits(yes)) | (~mask & bits(no)));
}
// Clamps that hand a NaN in `a` through: Eigen's pmin and pmax return their first argument when a
// comparison fails.
template <class P>
TIDEGATE_INLINE Vec<P> at_most(Vec<P> a, Vec<P> bound) {
  return {Eigen::internal::pmin(a.p, bound.p)};
}
template <class P>
TIDEGATE_INLINE Vec<P> at_least(Vec<P> a, Vec<P> bound) {
  return {Eigen::internal::pmax(a.p, bound.p)};
}

// NaN where either is.
template <class P>
TIDEGATE_INLINE Vec<P> larger(Vec<P> a, Vec<P> b) {
  return {Eigen::internal::pmax<Eigen::PropagateNaN>(a.p, b.p)};
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
