// The GRU exactly as the article writes it in 3.2, with a cell state C beside the hidden state h:
// z, r = s(.), s(.); C = (1 - z) C' + r a(z_c); h = (1 - z) h' + a(C). Gate order z, r, c; states
// h, C, neither bounded by 1.
#pragma once

#include "../cell.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct dual_state_gru {
  static constexpr CellInfo info{"dual_state_gru", 3, 2, 1, 3, 3, 3, false};
  static constexpr int input_slot = 0, recurrent_slot = 0;
  static constexpr int input_gates[3] = {0, 1, 2};

  template <class V, class Act>
  TIDEGATE_INLINE static void forward(const Act& act, const V* zx, const V* zh, V* state,
                                      V* saved) {
    const V zz = zx[0] + zh[0], zr = zx[1] + zh[1], zc = zx[2] + zh[2];
    const V z = act.rec(zz), r = act.rec(zr), g = act.act(zc), keep = V::set(1) - z;
    const V c = fma(keep, state[1], r * g);
    state[0] = fma(keep, state[0], act.act(c));
    state[1] = c;
    saved[0] = act.keep(zz, z), saved[1] = act.keep(zr, r), saved[2] = act.keep(zc, g);
  }

  template <class V, class Act>
  TIDEGATE_INLINE static void backward(const Act& act, const V* saved, const V* state,
                                       const V* prev, V* d_state, V* d_z) {
    const V z = act.rec_value(saved[0]), r = act.rec_value(saved[1]), g = act.act_value(saved[2]);
    const V keep = V::set(1) - z, a = act.act(state[1]), dh = d_state[0];
    const V dc = fma(dh, act.slope_at(state[1], a), d_state[1]);
    d_z[0] = -fma(dh, prev[0], dc * prev[1]) * act.rec_slope(saved[0]);
    d_z[1] = dc * g * act.rec_slope(saved[1]);
    d_z[2] = dc * r * act.act_slope(saved[2]);
    d_state[0] = dh * keep;
    d_state[1] = dc * keep;
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
