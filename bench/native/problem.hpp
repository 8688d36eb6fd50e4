// What the layer benchmarks compute: the named shapes, random weights and inputs, and the results.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tidegate/layers.hpp"

struct Shape {
  std::string name;
  int64_t batch, time, features, units;
  bool is_step() const { return batch == 1 && time == 1; }
};

// The shapes that `tidegate bench` uses too: name, batch, time, features, units, reason.
inline std::vector<Shape> read_shapes() {
  std::vector<Shape> shapes;
  std::ifstream file(TIDEGATE_SHAPES_FILE);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    Shape s;
    if (line[0] != '#' && fields >> s.name >> s.batch >> s.time >> s.features >> s.units)
      shapes.push_back(s);
  }
  return shapes;
}

inline std::vector<float> random_values(int64_t count, float bound) {
  static std::mt19937 generator(7);
  std::uniform_real_distribution<float> uniform(-bound, bound);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(generator);
  return values;
}

// Weights, inputs and the outputs' gradients, as the public API takes them.
struct Problem {
  Problem(const tidegate::CellDescription& cell, const Shape& shape)
      : cell(cell),
        shape(shape),
        kernel(random_values(shape.features * columns(), 1 / std::sqrt(float(shape.units)))),
        recurrent_kernel(random_values(shape.units * columns(), 1 / std::sqrt(float(shape.units)))),
        bias(random_values(cell.bias_rows * columns(), 0.1f)),
        x(random_values(shape.batch * shape.time * shape.features, 1)),
        d_y(random_values(shape.batch * shape.time * shape.units, 1)) {}
  int64_t columns() const { return cell.gates * shape.units; }
  tidegate::CellDescription cell;
  Shape shape;
  std::vector<float> kernel, recurrent_kernel, bias, x, d_y;
};

// What comes out, in the same layouts.
struct Results {
  explicit Results(const Problem& p)
      : y(p.d_y.size()),
        d_x(p.x.size()),
        d_kernel(p.kernel.size()),
        d_recurrent_kernel(p.recurrent_kernel.size()),
        d_bias(p.bias.size()) {}
  std::vector<float> y, d_x, d_kernel, d_recurrent_kernel, d_bias;
};
