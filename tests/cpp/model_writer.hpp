// Writes small deployment files with random weights, so that these tests need no Python. Their test
// vectors come from the layers of the engine themselves; that the format means the same in Python
// is tested there.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace writer {

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

inline std::vector<float> random_values(int64_t count, uint32_t seed, float bound = 0.5f) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-bound, bound);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(generator);
  return values;
}

inline std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) result += c == '"' ? "\\\"" : std::string(1, c);
  return result + "\"";
}

// The bytes of a safetensors file of float32 tensors.
inline std::string safetensors(const std::string& metadata, const std::vector<Tensor>& tensors) {
  std::string header = "{\"__metadata__\":{\"tidegate\":" + quoted(metadata) + "}", data;
  for (const Tensor& tensor : tensors) {
    header += ",\"" + tensor.name + "\":{\"dtype\":\"F32\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      header += (i ? "," : "") + std::to_string(tensor.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
    data.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * 4);
    header += std::to_string(data.size()) + "]}";
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string file;
  for (int i = 0; i < 8; ++i)
    file += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i) & 255);
  return file + header + data;
}

inline std::string layer(const std::string& class_name, const std::string& config) {
  return "{\"class_name\":\"" + class_name + "\",\"name\":\"x\",\"config\":{" + config + "}}";
}
inline std::string recurrent(const std::string& class_name, int64_t units) {
  std::string config =
      "\"units\":" + std::to_string(units) +
      ",\"activation\":\"tanh\",\"use_bias\":true,\"return_sequences\":true,\"go_backwards\":false,"
      "\"stateful\":false,\"zero_output_for_mask\":false";
  if (class_name != "SimpleRNN") config += ",\"recurrent_activation\":\"sigmoid\"";
  if (class_name == "GRU") config += ",\"reset_after\":true";
  return layer(class_name, config);
}
inline std::string dense(int64_t units, const std::string& activation = "tanh") {
  return layer("Dense", "\"units\":" + std::to_string(units) + ",\"activation\":\"" + activation +
                            "\",\"use_bias\":true");
}

inline std::string description(const std::vector<std::string>& layers, int64_t features,
                               double tolerance) {
  std::string all;
  for (const std::string& entry : layers) all += (all.empty() ? "" : ",") + entry;
  return "{\"format_version\":1,\"model\":{\"class_name\":\"Sequential\",\"name\":\"m\",\"dtype\":"
         "\"float32\","
         "\"batch_input_shape\":[null,null," +
         std::to_string(features) + "],\"layers\":[" + all +
         "]},\"test_vector\":{\"input\":\"test_vector.input\",\"output\":\"test_vector.output\","
         "\"tolerance\":" +
         std::to_string(tolerance) + "}}";
}

struct Layer {
  std::string class_name;  // a recurrent one, or Dense
  int64_t units;
};

// A stack of layers. Without an expected output the file accepts any (of bounded activations).
inline std::string stack(const std::vector<Layer>& layers, int64_t features,
                         const std::vector<float>* expected = nullptr) {
  std::vector<std::string> entries;
  std::vector<Tensor> tensors;
  int64_t rows = features;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& [name, units] = layers[i];
    const bool is_dense = name == "Dense";
    const int64_t gates = name == "LSTM" ? 4 : name == "SimpleRNN" ? 1 : 3;
    const int64_t columns = (is_dense ? 1 : gates) * units;
    const std::string prefix = "layers." + std::to_string(i) + ".";
    const auto seed = static_cast<uint32_t>(10 * i);
    entries.push_back(is_dense ? dense(units) : recurrent(name, units));
    tensors.push_back(
        {prefix + "kernel", {rows, columns}, random_values(rows * columns, seed + 1)});
    if (!is_dense)
      tensors.push_back({prefix + "recurrent_kernel",
                         {units, columns},
                         random_values(units * columns, seed + 2)});
    if (name == "GRU")
      tensors.push_back({prefix + "bias", {2, columns}, random_values(2 * columns, seed + 3)});
    else
      tensors.push_back({prefix + "bias", {columns}, random_values(columns, seed + 3)});
    rows = units;
  }
  tensors.push_back({"test_vector.input", {1, 2, features}, random_values(2 * features, 7)});
  tensors.push_back({"test_vector.output",
                     {1, 2, rows},
                     expected ? *expected : std::vector<float>(static_cast<size_t>(2 * rows))});
  return safetensors(description(entries, features, expected ? 1e-4 : 0.999999), tensors);
}

}  // namespace writer
