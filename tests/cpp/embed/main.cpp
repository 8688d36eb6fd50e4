// What a program that embeds the library sees: public headers, one target, no Python.
#include <tidegate/tidegate.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  // A SimpleRNN with one unit and weights of 1: h = tanh(x + h').
  const float one = 1, zero = 0, x[2] = {0.5f, -0.25f};
  const tidegate::Recurrent<float> layer("simple_rnn", 1, 1, &one, &one, &zero);
  float y[2];
  tidegate::SequenceInput<float> input;
  input.batch = 1, input.time = 2, input.x = x;
  tidegate::SequenceOutput<float> output;
  output.outputs = y;
  layer.forward(input, output);
  const double h0 = std::tanh(0.5), h1 = std::tanh(-0.25 + h0);
  std::printf("tidegate %s on %s: %g %g\n", tidegate::version(), tidegate::isa(), y[0], y[1]);
  return std::abs(y[0] - h0) < 1e-6 && std::abs(y[1] - h1) < 1e-6 ? 0 : 1;
}
