// The deployment file (docs/file-format.md), read and checked as far as that goes without building
// the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tidegate {

// An array in the file. `bytes` need not be aligned.
struct FileTensor {
  std::string dtype;  // "F32", "F64", "I32" ...
  std::vector<int64_t> shape;
  const unsigned char* bytes;
  int64_t count() const;
};

// One layer's entry; keys that its class does not have stay at their defaults.
struct LayerEntry {
  std::string subject;  // for errors: "layers[0] (LSTM)"
  std::string class_name;
  int64_t units = 0, input_dim = 0, output_dim = 0;
  std::string activation, recurrent_activation, merge_mode;
  bool use_bias = false, return_sequences = false, go_backwards = false, stateful = false;
  bool zero_output_for_mask = false, reset_after = false, mask_zero = false;
  double mask_value = 0, rate = 0;
  std::vector<LayerEntry> layer, backward_layer;  // none or one
};

struct ModelFile {
  std::string label;  // the file, for errors
  size_t size = 0;
  bool is_double = false;
  std::vector<int64_t> batch_input_shape;  // -1: any
  std::vector<LayerEntry> layers;
  std::map<std::string, FileTensor> tensors;
  double tolerance = 0;
};

// Refers to the data. Throws Error for anything that the format does not allow.
ModelFile read_model_file(const unsigned char* data, size_t size, const std::string& label);

}  // namespace tidegate
