// What the two directions of the time loop share (forward.hpp, backward.hpp). The loop owns time,
// threads and memory; the cell owns the equations (cell.hpp) and the tile the registers (gemm.hpp).
//
// Every thread of the team runs these functions (SPMD). With Split::rows it owns rows of the batch
// for all of time and meets nobody in forward; with Split::units it owns panels of units and meets
// the others once a step (twice for two-phase cells). In backward all meet once a chunk, whose
// weight gradients are then split over output tiles, never over the reduction.
#pragma once

#include "cell.hpp"
#include "gemm.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};
struct Rows {  // rows of the batch by number
  const int32_t* ids;
  int count;
};
inline Range share(int64_t count, int part, int parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

// tanh and sigmoid have a path of their own in the pointwise functions, and only there.
template <class T>
bool default_activations(const ForwardArgs<T>& a) {
  return a.activation == Activation::tanh && a.recurrent_activation == Activation::sigmoid;
}
template <class Act, class T>
TIDEGATE_INLINE Act activations(const ForwardArgs<T>& a) {
  if constexpr (Act::keeps_gates) {
    (void)a;
    return Act{};
  } else {
    return Act{a.activation, a.recurrent_activation};
  }
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
