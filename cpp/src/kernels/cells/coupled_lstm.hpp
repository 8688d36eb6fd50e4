// The LSTM with coupled gates ("CIFG" in Greff et al. 2015, "LSTM: A Search Space Odyssey", without
// peepholes): as much comes in as is forgotten, i = 1 - f. f, o = s(z_f), s(z_o), g = a(z_c); c = f
// c' + (1 - f) g; h = o a(c). Gate order f, c, o: the LSTM's without i.
#pragma once

#include "../cell.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct coupled_lstm {
  static constexpr CellInfo info{"coupled_lstm", 3, 2, 1, 3, 3, 3, false};
  static constexpr int input_slot = 0, recurrent_slot = 0;
  static constexpr int input_gates[3] = {0, 1, 2};

  template <class V, class Act>
  TIDEGATE_INLINE static void forward(const Act& act, const V* zx, const V* zh, V* state,
                                      V* saved) {
    const V zf = zx[0] + zh[0], zc = zx[1] + zh[1], zo = zx[2] + zh[2];
    const V f = act.rec(zf), g = act.act(zc), o = act.rec(zo);
    const V c = fma(f, state[1] - g, g);
    state[0] = o * act.act(c);
    state[1] = c;
    saved[0] = act.keep(zf, f), saved[1] = act.keep(zc, g), saved[2] = act.keep(zo, o);
  }

  template <class V, class Act>
  TIDEGATE_INLINE static void backward(const Act& act, const V* saved, const V* state,
                                       const V* prev, V* d_state, V* d_z) {
    const V f = act.rec_value(saved[0]), g = act.act_value(saved[1]), o = act.rec_value(saved[2]);
    const V a = act.act(state[1]), dh = d_state[0];
    const V dc = fma(dh * o, act.slope_at(state[1], a), d_state[1]), kept = dc * f;
    d_z[0] = dc * (prev[1] - g) * act.rec_slope(saved[0]);
    d_z[1] = (dc - kept) * act.act_slope(saved[1]);
    d_z[2] = dh * a * act.rec_slope(saved[2]);
    d_state[0] = V::zero();
    d_state[1] = kept;
  }
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
