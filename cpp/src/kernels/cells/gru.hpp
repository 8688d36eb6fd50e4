// Gated recurrent unit with reset_after=True, Keras's default and cuDNN's form of Cho et al. 2014:
// z, r = s(.), s(.); n = a(x W_h + b_h + r (h' U_h + b'_h)); h = z h' + (1 - z) n. Gate order z, r,
// h.
#pragma once

#include "../cell.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct gru {
  static constexpr CellInfo info{"gru", 3, 1, 2, 4, 4, 4, false};
  // The candidate's gradient differs between the two products. d_z = [n of W, z, r, n of U]: each
  // product finds its three columns side by side.
  static constexpr int input_slot = 0, recurrent_slot = 1;
  static constexpr int input_gates[3] = {2, 0, 1};

  template <class V, class Act>
  TIDEGATE_INLINE static void forward(const Act& act, const V* zx, const V* zh, V* state,
                                      V* saved) {
    const V zz = zx[0] + zh[0], zr = zx[1] + zh[1];
    const V z = act.rec(zz), r = act.rec(zr);
    const V zn = fma(r, zh[2], zx[2]);
    const V n = act.act(zn);
    state[0] = fma(z, state[0] - n, n);
    saved[0] = act.keep(zz, z), saved[1] = act.keep(zr, r), saved[2] = act.keep(zn, n),
    saved[3] = zh[2];
  }

  template <class V, class Act>
  TIDEGATE_INLINE static void backward(const Act& act, const V* saved, const V*, const V* prev,
                                       V* d_state, V* d_z) {
    const V z = act.rec_value(saved[0]), r = act.rec_value(saved[1]), n = act.act_value(saved[2]),
            dh = d_state[0];
    const V dn = (dh - dh * z) * act.act_slope(saved[2]);
    d_z[0] = dn;
    d_z[1] = dh * (prev[0] - n) * act.rec_slope(saved[0]);
    d_z[2] = dn * saved[3] * act.rec_slope(saved[1]);
    d_z[3] = dn * r;
    d_state[0] = dh * z;
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
