// The simple recurrent network (Elman 1990), as Keras's SimpleRNN: h = a(z).
#pragma once

#include "../cell.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct simple_rnn {
  static constexpr CellInfo info{"simple_rnn", 1, 1, 1, 0, 1, 1, false};
  static constexpr int input_slot = 0, recurrent_slot = 0;
  static constexpr int input_gates[1] = {0};

  template <class V, class Act>
  TIDEGATE_INLINE static void forward(const Act& act, const V* zx, const V* zh, V* state,
                                      V* saved) {
    const V z = zx[0] + zh[0];
    state[0] = act.act(z);
    if constexpr (!Act::keeps_gates) saved[0] = z;
  }

  template <class V, class Act>
  TIDEGATE_INLINE static void backward(const Act& act, const V* saved, const V* state, const V*,
                                       V* d_state, V* d_z) {
    if constexpr (Act::keeps_gates) {
      d_z[0] = d_state[0] * act.act_slope(state[0]);  // the kept gate is h itself
    } else {
      d_z[0] = d_state[0] * act.act_slope(saved[0]);
    }
    d_state[0] = V::zero();
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
