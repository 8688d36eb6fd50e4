// The layers through the public headers: many callers and threads at once, one step, interruption.
#include "tidegate/layers.hpp"

#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "team.hpp"
#include "tidegate/optimizer.hpp"
#include "tidegate/runtime.hpp"

namespace {

using tidegate::Recurrent;
using Floats = std::vector<float>;

Floats random_floats(size_t n, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats out(n);
  for (float& x : out) x = normal(random);
  return out;
}

struct Case {
  std::string cell;
  int64_t batch, time, features, units;
  Floats kernel, recurrent_kernel, bias, x;
  tidegate::CellDescription info;

  Case(const std::string& cell, int64_t batch, int64_t time, int64_t features, int64_t units)
      : cell(cell), batch(batch), time(time), features(features), units(units) {
    for (const auto& known : tidegate::cells())
      if (known.name == cell) info = known;
    const size_t columns = info.gates * units;
    kernel = random_floats(features * columns, 0.5f, 1);
    recurrent_kernel = random_floats(units * columns, 0.2f, 2);
    bias = random_floats(info.bias_rows * columns, 0.1f, 3);
    x = random_floats(batch * time * features, 1, 4);
  }
  Recurrent<float> layer() const {
    return Recurrent<float>(cell, features, units, kernel.data(), recurrent_kernel.data(),
                            bias.data());
  }
  Floats forward(const Recurrent<float>& layer) const {
    Floats y(batch * time * units);
    tidegate::SequenceInput<float> in;
    in.batch = batch, in.time = time, in.x = x.data();
    tidegate::SequenceOutput<float> out;
    out.outputs = y.data();
    layer.forward(in, out);
    return y;
  }
  // Everything that a training call gives, in one row.
  Floats train(Recurrent<float>& layer) const;
};

// A training call and what it fills.
struct Training {
  Floats y, d_x, d_kernel, d_recurrent, d_bias;
  tidegate::Context<float> context;
  tidegate::ForwardCall<float> forward;
  tidegate::BackwardCall<float> backward;

  Training(const Case& c, Recurrent<float>& layer, bool go_backwards = false)
      : y(c.batch * c.time * c.units),
        d_x(c.x.size()),
        d_kernel(c.kernel.size()),
        d_recurrent(c.recurrent_kernel.size()),
        d_bias(c.bias.size()) {
    layer.prepare_training(c.kernel.data(), c.recurrent_kernel.data());
    forward.layer = backward.layer = &layer;
    forward.context = &context, backward.context = &context;
    forward.input.batch = c.batch, forward.input.time = c.time, forward.input.x = c.x.data();
    forward.input.go_backwards = go_backwards;
    forward.output.outputs = y.data();
    backward.d_output.outputs = y.data();
    auto& g = backward.gradients;
    g.x = d_x.data(), g.kernel = d_kernel.data(), g.recurrent_kernel = d_recurrent.data(),
    g.bias = d_bias.data();
  }
  Floats results() const {
    Floats all = y;
    for (const Floats* part : {&d_x, &d_kernel, &d_recurrent, &d_bias})
      all.insert(all.end(), part->begin(), part->end());
    return all;
  }
};

Floats Case::train(Recurrent<float>& layer) const {
  Training t(*this, layer);
  layer.forward(t.forward.input, t.forward.output, &t.context);
  layer.backward(t.context, t.backward.d_output, t.backward.gradients);
  return t.results();
}

std::vector<std::string> cell_names() {
  std::vector<std::string> names;
  for (const auto& cell : tidegate::cells()) names.push_back(cell.name);
  return names;
}

}  // namespace

TEST(one_step_gives_the_bits_of_the_sequence) {
  for (const auto& cell : cell_names())
    for (const int64_t units : {1, 7, 8, 9, 16, 17, 33, 70}) {
      const Case c(cell, 3, 6, 5, units);
      const auto layer = c.layer();
      const Floats whole = c.forward(layer);
      Floats memory(layer.step_memory(c.batch)), y(c.batch * units), x(c.batch * c.features);
      layer.reset_step(memory.data(), c.batch);
      bool same = true;
      for (int64_t t = 0; t < c.time; ++t) {
        for (int64_t b = 0; b < c.batch; ++b)
          std::memcpy(&x[b * c.features], &c.x[(b * c.time + t) * c.features],
                      c.features * sizeof(float));
        layer.step(x.data(), memory.data(), c.batch, y.data());
        for (int64_t b = 0; b < c.batch; ++b)
          same &=
              !std::memcmp(&y[b * units], &whole[(b * c.time + t) * units], units * sizeof(float));
      }
      CHECK(same);
      Floats h(c.batch * units);
      layer.get_step_state(memory.data(), c.batch, 0, h.data());
      CHECK(h == y);
    }
}

TEST(many_callers_and_many_threads_give_the_same_bits) {
  tidegate::set_parallel_threshold(0);
  for (const auto& cell : cell_names()) {
    const Case c(cell, 7, 5, 3, 37);
    tidegate::set_num_threads(1);
    auto layer = c.layer();
    const Floats expected = c.train(layer);
    for (const int threads : {2, 3, 7}) {
      tidegate::set_num_threads(threads);
      CHECK(c.train(layer) == expected);
      std::vector<std::thread> callers;
      std::vector<char> same(4, 0);
      for (int i = 0; i < 4; ++i)
        callers.emplace_back([&, i] {
          auto own = c.layer();
          same[i] = c.train(layer) == expected && c.train(own) == expected;
        });
      for (auto& caller : callers) caller.join();
      CHECK(same == std::vector<char>(4, 1));
    }
  }
  tidegate::set_num_threads(1);
  tidegate::set_parallel_threshold(400e3);
}

TEST(two_calls_at_once_give_the_bits_of_each) {
  tidegate::set_parallel_threshold(0);
  for (const auto& cell : cell_names())
    for (const auto& [batch, other_units] :
         {std::pair<int64_t, int64_t>{1, 37}, {7, 37}, {7, 90}}) {
      const Case one(cell, batch, 5, 3, 37), other(cell, batch, 5, 3, other_units);
      auto layer = one.layer(), other_layer = other.layer();
      const auto both = [&](bool at_once) {
        Training a(one, layer), b(other, other_layer, true);
        if (at_once) {
          Recurrent<float>::forward_both(a.forward, b.forward);
          Recurrent<float>::backward_both(a.backward, b.backward);
        } else {
          for (Training* t : {&a, &b}) {
            t->forward.layer->forward(t->forward.input, t->forward.output, &t->context);
            t->backward.layer->backward(t->context, t->backward.d_output, t->backward.gradients);
          }
        }
        return std::pair{a.results(), b.results()};
      };
      tidegate::set_num_threads(1);
      const auto expected = both(false);
      for (const int threads : {1, 2, 3, 4, 7}) {
        tidegate::set_num_threads(threads);
        CHECK(both(true) == expected);
        std::vector<std::thread> callers;
        std::vector<char> same(3, 0);
        for (int i = 0; i < 3; ++i)
          callers.emplace_back([&, i] { same[i] = both(true) == expected; });
        for (auto& caller : callers) caller.join();
        CHECK(same == std::vector<char>(3, 1));
      }
      tidegate::set_parallel_threshold(1);  // helpers that do not show up are not waited for
      tidegate::set_num_threads(2);
      for (int i = 0; i < 20; ++i) CHECK(both(true) == expected);
      tidegate::set_parallel_threshold(0);
    }
  tidegate::set_num_threads(1);
  tidegate::set_parallel_threshold(400e3);
}

// The poll is asked by the calling thread only, and what it says ends both calls.
TEST(two_calls_at_once_can_be_interrupted) {
  tidegate::set_parallel_threshold(0);
  const Case c("lstm", 4, 1500, 3, 20);
  auto layer = c.layer();
  for (const int threads : {1, 2, 3, 4})
    for (const int last : {0, 1, 3}) {
      tidegate::set_num_threads(threads);
      struct Asked {
        std::thread::id caller = std::this_thread::get_id();
        int times = 0, last = 0;
        bool elsewhere = false;
      } asked;
      asked.last = last;
      const tidegate::Poll poll{[](void* data) {
                                  auto& a = *static_cast<Asked*>(data);
                                  a.elsewhere |= std::this_thread::get_id() != a.caller;
                                  return a.times++ == a.last;
                                },
                                &asked};
      Training one(c, layer), other(c, layer, true);
      CHECK_THROWS(tidegate::Interrupted,
                   Recurrent<float>::forward_both(one.forward, other.forward, poll));
      CHECK(asked.times == last + 1 && !asked.elsewhere);
      CHECK(!one.context.data && !other.context.data);
      Recurrent<float>::forward_both(one.forward, other.forward);
      asked.times = 0;
      CHECK_THROWS(tidegate::Interrupted,
                   Recurrent<float>::backward_both(one.backward, other.backward, poll));
      CHECK(asked.times == last + 1 && !asked.elsewhere);
    }
  tidegate::set_num_threads(1);
  tidegate::set_parallel_threshold(400e3);
}

TEST(errors_come_before_either_call_writes) {
  const Case c("gru", 2, 3, 4, 5);
  auto layer = c.layer(), unprepared = c.layer();
  Training one(c, layer), other(c, layer, true);
  other.forward.layer = &unprepared;
  CHECK_THROWS(tidegate::Error, Recurrent<float>::forward_both(one.forward, other.forward));
  CHECK(one.y == Floats(one.y.size()) && !one.context.data);
}

TEST(a_call_can_be_interrupted) {
  const Case c("lstm", 4, 5, 3, 20);
  const auto layer = c.layer();
  Floats y(c.batch * c.time * c.units);
  tidegate::SequenceInput<float> in;
  in.batch = c.batch, in.time = c.time, in.x = c.x.data();
  tidegate::SequenceOutput<float> out;
  out.outputs = y.data();
  CHECK_THROWS(tidegate::Interrupted,
               layer.forward(in, out, nullptr, {[](void*) { return true; }, nullptr}));
}

TEST(errors_say_what_was_expected) {
  const Floats w(400, 0.0f);
  CHECK_THROWS(tidegate::Error, Recurrent<float>("foo", 2, 5, w.data(), w.data(), nullptr));
  CHECK_THROWS(tidegate::Error, Recurrent<float>("lstm", 2, 0, w.data(), w.data(), nullptr));
  CHECK_THROWS(tidegate::Error, Recurrent<float>("lstm", -1, 5, w.data(), w.data(), nullptr));
  CHECK_THROWS(tidegate::Error,
               Recurrent<float>("lstm", 2, 5, w.data(), w.data(), nullptr, "softmax"));
  CHECK_THROWS(tidegate::Error, tidegate::set_num_threads(0));
}

TEST(every_rule_descends) {
  const Floats start = random_floats(37, 1, 5);
  for (const auto& rule : tidegate::update_rules()) {
    Floats w = start, coefficients(static_cast<size_t>(rule.coefficients), 0.5f);
    coefficients[0] = 1e-3f;  // the rate
    std::vector<Floats> slots(static_cast<size_t>(rule.slots), Floats(w.size(), 0.0f));
    const Floats gradient = w;  // of |w|^2 / 2
    tidegate::VariableUpdate<float> variable;
    variable.size = static_cast<int64_t>(w.size());
    variable.gradient = gradient.data(), variable.weights = w.data();
    for (size_t s = 0; s < slots.size(); ++s) variable.slots[s] = slots[s].data();
    tidegate::UpdateStep<float> step;
    step.coefficients = coefficients.data();
    tidegate::update(rule.name, step, &variable, 1);
    for (size_t i = 0; i < w.size(); ++i) CHECK(std::abs(w[i]) < std::abs(start[i]));
  }
  CHECK_THROWS(tidegate::Error, tidegate::update<float>("foo", {}, nullptr, 0));
}
