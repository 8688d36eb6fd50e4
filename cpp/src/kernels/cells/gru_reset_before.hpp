// Gated recurrent unit with reset_after=False, as Cho et al. 2014 wrote it: z, r = s(.), s(.); n =
// a(x W_h + b_h + (r h') U_h); h = z h' + (1 - z) n. Gate order z, r, h. The candidate's product
// needs r h' of every unit first: two phases a step.
#pragma once

#include "../cell.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct gru_reset_before {
  static constexpr CellInfo info{"gru_reset_before", 3, 1, 1, 3, 3, 3, true};
  static constexpr int input_slot = 0, recurrent_slot = 0;
  static constexpr int input_gates[3] = {0, 1, 2};

  // Phase 1: zx[3], zh[2] = h' U_z, h' U_r. Keeps z and r; `reset` = (the masked) h' on which r
  // acts, out r h'.
  template <class V, class Act>
  TIDEGATE_INLINE static void forward_gates(const Act& act, const V* zx, const V* zh, V& reset,
                                            V* saved) {
    const V zz = zx[0] + zh[0], zr = zx[1] + zh[1];
    const V r = act.rec(zr);
    reset = r * reset;
    saved[0] = act.keep(zz, act.rec(zz)), saved[1] = act.keep(zr, r);
  }
  // Phase 2: zh = (r h') U_h.
  template <class V, class Act>
  TIDEGATE_INLINE static void forward_candidate(const Act& act, V zx, V zh, V* state, V* saved) {
    const V z = act.rec_value(saved[0]), zn = zx + zh, n = act.act(zn);
    state[0] = fma(z, state[0] - n, n);
    saved[2] = act.keep(zn, n);
  }

  template <class V, class Act>
  TIDEGATE_INLINE static void backward_candidate(const Act& act, const V* saved, const V* prev,
                                                 V* d_state, V* d_z) {
    const V z = act.rec_value(saved[0]), n = act.act_value(saved[2]), dh = d_state[0];
    d_z[0] = dh * (prev[0] - n) * act.rec_slope(saved[0]);
    d_z[2] = (dh - dh * z) * act.act_slope(saved[2]);
    d_state[0] = dh * z;
  }
  // d_reset = d_z[2] U_h^T: the gradient of r h'.
  template <class V, class Act>
  TIDEGATE_INLINE static void backward_gates(const Act& act, const V* saved, const V* prev,
                                             V d_reset, V* d_state, V* d_z) {
    d_z[1] = d_reset * prev[0] * act.rec_slope(saved[1]);
    d_state[0] = fma(d_reset, act.rec_value(saved[1]), d_state[0]);
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
