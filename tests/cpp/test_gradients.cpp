// Backward through the public C++ API, against central differences of its own forward. What the
// cells compute is judged by the Python tests and their NumPy twin.
#include <random>

#include "check.hpp"
#include "team.hpp"
#include "tidegate/layers.hpp"
#include "tidegate/runtime.hpp"

namespace {

using tidegate::CellDescription;
using Layer = tidegate::Recurrent<double>;
using Doubles = std::vector<double>;

Doubles random_doubles(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-0.5, 0.5);
  Doubles values(count);
  for (double& value : values) value = uniform(generator);
  return values;
}

// One layer, its data, and the gradients of
//   loss = sum(outputs * d_outputs) + sum over the states of sum(final state * d_state)
struct Problem {
  CellDescription cell;
  int64_t batch, time, features, units;
  std::string activation = "tanh", recurrent_activation = "sigmoid";
  bool masked = false, backwards = false;
  std::vector<uint8_t> mask;
  Doubles kernel, recurrent_kernel, bias, x, state[2], d_outputs, d_state[2];
  Doubles outputs, final_state[2], d_x, d_kernel, d_recurrent_kernel, d_bias, d_initial[2];

  Problem(const CellDescription& cell, int64_t batch, int64_t time, int64_t features, int64_t units)
      : cell(cell), batch(batch), time(time), features(features), units(units) {
    const int64_t columns = cell.gates * units;
    kernel = random_doubles(features * columns, 1);
    recurrent_kernel = random_doubles(units * columns, 2);
    bias = random_doubles(cell.bias_rows * columns, 3);
    x = random_doubles(batch * time * features, 4);
    d_outputs = random_doubles(batch * time * units, 5);
    for (int s = 0; s < cell.states; ++s) {
      state[s] = random_doubles(batch * units, 6 + s);
      d_state[s] = random_doubles(batch * units, 8 + s);
    }
    for (int64_t i = 0; i < batch * time; ++i) mask.push_back(i % 3 != 1);
  }

  Layer layer() const {
    return Layer(cell.name, features, units, kernel.data(), recurrent_kernel.data(), bias.data(),
                 activation, recurrent_activation);
  }

  void forward(const Layer& layer, tidegate::Context<double>* context = nullptr) {
    tidegate::SequenceInput<double> in;
    in.batch = batch, in.time = time, in.x = x.data();
    in.go_backwards = backwards;
    if (masked) in.mask = mask.data();
    tidegate::SequenceOutput<double> out;
    outputs.assign(batch * time * units, 99);
    out.outputs = outputs.data();
    for (int s = 0; s < cell.states; ++s) {
      in.initial_state[s] = state[s].data();
      final_state[s].assign(batch * units, 99);
      out.final_state[s] = final_state[s].data();
    }
    layer.forward(in, out, context);
  }

  void backward(const Layer& layer, const tidegate::Context<double>& context) {
    tidegate::SequenceGradients<double> d_out;
    d_out.outputs = d_outputs.data();
    d_x.assign(x.size(), 99), d_kernel.assign(kernel.size(), 99), d_bias.assign(bias.size(), 99);
    d_recurrent_kernel.assign(recurrent_kernel.size(), 99);
    tidegate::LayerGradients<double> gradients;
    gradients.x = d_x.data(), gradients.kernel = d_kernel.data(), gradients.bias = d_bias.data();
    gradients.recurrent_kernel = d_recurrent_kernel.data();
    for (int s = 0; s < cell.states; ++s) {
      d_out.final_state[s] = d_state[s].data();
      d_initial[s].assign(batch * units, 99);
      gradients.initial_state[s] = d_initial[s].data();
    }
    layer.backward(context, d_out, gradients);
  }

  void train() {
    Layer made = layer();
    made.prepare_training(kernel.data(), recurrent_kernel.data());
    tidegate::Context<double> context;
    forward(made, &context);
    backward(made, context);
  }

  double loss() {
    forward(layer());
    double sum = 0;
    for (size_t i = 0; i < outputs.size(); ++i) sum += outputs[i] * d_outputs[i];
    for (int s = 0; s < cell.states; ++s)
      for (size_t i = 0; i < final_state[s].size(); ++i) sum += final_state[s][i] * d_state[s][i];
    return sum;
  }

  // Some entries of `gradient`, that of `values` (a member of this problem).
  void check_gradient(const char* what, Doubles& values, const Doubles& gradient) {
    constexpr double step = 1e-5;
    for (size_t i = 0; i < values.size(); i += 1 + values.size() / 7) {
      const double kept = values[i];
      values[i] = kept + step;
      const double above = loss();
      values[i] = kept - step;
      const double numeric = (above - loss()) / (2 * step);
      values[i] = kept;
      const double tolerance = 1e-7 * (1 + std::abs(numeric));
      CHECK_NEAR(gradient[i], numeric, tolerance);
      if (!(std::abs(gradient[i] - numeric) <= tolerance))
        std::printf("  of %s[%zu], %s, %d units\n", what, i, cell.name.c_str(),
                    static_cast<int>(units));
    }
  }

  void check_gradients() {
    train();
    check_gradient("x", x, d_x);
    check_gradient("kernel", kernel, d_kernel);
    check_gradient("recurrent_kernel", recurrent_kernel, d_recurrent_kernel);
    check_gradient("bias", bias, d_bias);
    for (int s = 0; s < cell.states; ++s) check_gradient("initial state", state[s], d_initial[s]);
  }
};

}  // namespace

TEST(gradients_are_those_of_the_forward_pass) {
  tidegate::set_num_threads(2);
  tidegate::set_parallel_threshold(0);
  for (const auto& cell : tidegate::cells())
    for (const int64_t units : {1, 7, 9, 17})
      for (const bool masked : {false, true}) {
        Problem problem(cell, 3, 4, 5, units);
        problem.masked = problem.backwards = masked;
        problem.check_gradients();
      }
  tidegate::set_num_threads(1);
  tidegate::set_parallel_threshold(400e3);
}

TEST(gradients_with_other_activations) {
  for (const auto& cell : tidegate::cells()) {
    Problem problem(cell, 2, 3, 4, 6);
    problem.activation = "softsign", problem.recurrent_activation = "silu";
    problem.check_gradients();
  }
}

TEST(a_context_may_be_used_again) {
  for (const auto& cell : tidegate::cells()) {
    Problem problem(cell, 2, 3, 4, 5);
    Layer layer = problem.layer();
    layer.prepare_training(problem.kernel.data(), problem.recurrent_kernel.data());
    tidegate::Context<double> context;
    problem.forward(layer, &context);
    problem.backward(layer, context);
    const Doubles d_kernel = problem.d_kernel, d_x = problem.d_x;
    problem.backward(layer, context);
    CHECK(problem.d_kernel == d_kernel && problem.d_x == d_x);
  }
}

TEST(a_batch_of_no_rows_has_gradients_of_zero) {
  for (const auto& cell : tidegate::cells()) {
    Problem problem(cell, 0, 3, 4, 5);
    problem.train();
    CHECK(problem.d_kernel == Doubles(problem.kernel.size(), 0.0));
    CHECK(problem.d_recurrent_kernel == Doubles(problem.recurrent_kernel.size(), 0.0));
    CHECK(problem.d_bias == Doubles(problem.bias.size(), 0.0));
  }
}

TEST(dense_agrees_with_its_definition) {
  const int64_t n = 5, features = 19, units = 37;
  const Doubles x = random_doubles(n * features, 1), w = random_doubles(features * units, 2);
  const Doubles b = random_doubles(units, 3), d_y = random_doubles(n * units, 4);
  Doubles y(n * units), d_x(x.size()), d_w(w.size()), d_b(b.size());
  tidegate::Dense<double>(features, units, w.data(), b.data()).forward(x.data(), n, y.data());
  tidegate::dense_backward(x.data(), w.data(), d_y.data(), n, features, units, d_x.data(),
                           d_w.data(), d_b.data());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < units; ++j) {
      double sum = b[j];
      for (int64_t k = 0; k < features; ++k) sum += x[i * features + k] * w[k * units + j];
      CHECK_NEAR(y[i * units + j], sum, 1e-14);
    }
  for (int64_t k = 0; k < features; ++k)
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < units; ++j) sum += d_y[i * units + j] * w[k * units + j];
      CHECK_NEAR(d_x[i * features + k], sum, 1e-14);
    }
  for (int64_t j = 0; j < units; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += d_y[i * units + j];
    CHECK_NEAR(d_b[j], sum, 1e-14);
    for (int64_t k = 0; k < features; ++k) {
      double product = 0;
      for (int64_t i = 0; i < n; ++i) product += x[i * features + k] * d_y[i * units + j];
      CHECK_NEAR(d_w[k * units + j], product, 1e-14);
    }
  }
}
