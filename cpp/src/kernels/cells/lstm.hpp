// Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
// 2000), as Keras and the article's 3.1: i, f, o = s(z_i), s(z_f), s(z_o), g = a(z_c); c = f c' + i
// g; h = o a(c). Gate order i, f, c, o.
#pragma once

#include "../cell.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct lstm {
  static constexpr CellInfo info{"lstm", 4, 2, 1, 4, 4, 4, false};
  static constexpr int input_slot = 0, recurrent_slot = 0;
  static constexpr int input_gates[4] = {0, 1, 2, 3};

  template <class V, class Act>
  TIDEGATE_INLINE static void forward(const Act& act, const V* zx, const V* zh, V* state,
                                      V* saved) {
    const V zi = zx[0] + zh[0], zf = zx[1] + zh[1], zc = zx[2] + zh[2], zo = zx[3] + zh[3];
    const V i = act.rec(zi), f = act.rec(zf), g = act.act(zc), o = act.rec(zo);
    const V c = fma(f, state[1], i * g);
    state[0] = o * act.act(c);
    state[1] = c;
    saved[0] = act.keep(zi, i), saved[1] = act.keep(zf, f), saved[2] = act.keep(zc, g),
    saved[3] = act.keep(zo, o);
  }

  template <class V, class Act>
  TIDEGATE_INLINE static void backward(const Act& act, const V* saved, const V* state,
                                       const V* prev, V* d_state, V* d_z) {
    const V i = act.rec_value(saved[0]), f = act.rec_value(saved[1]), g = act.act_value(saved[2]);
    const V o = act.rec_value(saved[3]), a = act.act(state[1]), dh = d_state[0];
    const V dc = fma(dh * o, act.slope_at(state[1], a), d_state[1]);
    d_z[0] = dc * g * act.rec_slope(saved[0]);
    d_z[1] = dc * prev[1] * act.rec_slope(saved[1]);
    d_z[2] = dc * i * act.act_slope(saved[2]);
    d_z[3] = dh * a * act.rec_slope(saved[3]);
    d_state[0] = V::zero();
    d_state[1] = dc * f;
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
