// What a cell is: the pointwise part of a recurrent layer, forward beside backward, one file each
// in cells/.
//
// A cell is a struct with
//   info                     CellInfo: name, gates, states (h first) and what is kept for backward
//   forward(act, zx, zh, state, saved)
//       zx[gates]            x W + b, in Keras's gate order
//       zh[gates]            h(t-1) U (+ the recurrent bias), one finished sum each
//       state[states]        in: the states of t-1; out: those of t
//       saved[]              what backward needs beside the states: through act.keep(z, gate)
//   backward(act, saved, state, prev, d_state, d_z)
//       state, prev          the states of t and t-1
//       d_state[states]      in: the gradients of the states of t; out: those parts of the
//       gradients of t-1 that do not go
//                            through the recurrent product
//       d_z[gradient_slots]  gradients of the pre-activations
//   input_slot, recurrent_slot   where in d_z the `gates` columns start that go with W and with U,
//   and input_gates              the order of Keras's gates in d_z counted from input_slot
// All on vectors V; act is DefaultActivations or NamedActivations (math.hpp). Padded lanes get
// zeros in and must give finite numbers. A cell whose candidate needs the product of the reset
// state (two_phases) has instead forward_gates and forward_candidate, backward_candidate and
// backward_gates (see gru_reset_before.hpp).
#pragma once

#include "math.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

// The gates of a phase's recurrent product: all of them, or of two-phase cells all but the
// candidate, then it.
template <class Cell>
constexpr int phase_first(int phase) {
  return phase == 0 ? 0 : Cell::info.gates - 1;
}
template <class Cell>
constexpr int phase_gates(int phase) {
  return !Cell::info.two_phases ? Cell::info.gates : phase == 0 ? Cell::info.gates - 1 : 1;
}

template <class Cell, class Act>
constexpr int saved_count() {
  return Act::keeps_gates ? Cell::info.saved : Cell::info.saved_generic;
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate
