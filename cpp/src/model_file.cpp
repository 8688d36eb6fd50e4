#include "model_file.hpp"

#include <algorithm>
#include <cstring>
#include <set>

#include <nlohmann/json.hpp>

#include "tidegate/error.hpp"

namespace tidegate {
namespace {

using Json = nlohmann::json;

// A header takes some ten times its size once it is parsed. This one describes thousands of layers.
constexpr uint64_t kMostHeader = 4 << 20;
constexpr int kMostNesting = 32;
constexpr int64_t kMostSize = int64_t(1) << 31;  // of one axis, as in layers.hpp

std::string shown(const Json& value) {
  std::string text = value.is_structured() ? std::string(value.type_name()) : value.dump();
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

[[noreturn]] void fail(const std::string& subject, const std::string& expected,
                       const std::string& got) {
  throw Error(subject + ": expected " + expected + ", got " + got);
}

Json parse(const char* first, const char* last, const std::string& subject) {
  std::vector<std::set<std::string>> keys(1);  // of the objects that are open
  try {
    Json value = Json::parse(first, last, [&](int depth, Json::parse_event_t event, Json& parsed) {
      switch (event) {
        case Json::parse_event_t::object_start:
        case Json::parse_event_t::array_start:
          if (depth > kMostNesting)
            throw Error(subject + ": expected a JSON object, got one nested too deeply");
          keys.emplace_back();
          break;
        case Json::parse_event_t::object_end:
        case Json::parse_event_t::array_end:
          keys.pop_back();
          break;
        case Json::parse_event_t::key:
          if (!keys.back().insert(parsed.get_ref<const std::string&>()).second)
            throw Error(subject + ": expected keys that differ, got " + shown(parsed) + " twice");
          break;
        default:
          break;
      }
      return true;
    });
    if (!value.is_object()) fail(subject, "a JSON object", value.type_name());
    return value;
  } catch (const Json::exception& error) {
    throw Error(subject + ": expected a JSON object, got invalid JSON: " + error.what());
  }
}

// ---- safetensors -------------------------------------------------------------------------------
int64_t size_of(const std::string& dtype) {  // 0: unknown
  static const std::map<std::string, int64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

bool is_count(const Json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() < (uint64_t(1) << 62);
}

FileTensor read_tensor(const Json& entry, const std::string& subject, const unsigned char* data,
                       uint64_t size, std::pair<uint64_t, uint64_t>& range) {
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") ||
      !entry.contains("shape") || !entry.contains("data_offsets"))
    fail(subject, "dtype, shape and data_offsets", shown(entry));
  const Json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  FileTensor tensor;
  if (!dtype.is_string() || !size_of(dtype.get_ref<const std::string&>()))
    fail(subject, "a dtype of safetensors", shown(dtype));
  tensor.dtype = dtype.get<std::string>();
  uint64_t bytes = static_cast<uint64_t>(size_of(tensor.dtype));
  if (!shape.is_array() || shape.size() > 16)
    fail(subject, "a shape of at most 16 axes", shown(shape));
  for (const Json& axis : shape) {
    if (!is_count(axis)) fail(subject, "a shape of sizes", shown(axis));
    tensor.shape.push_back(axis.get<int64_t>());
    if (__builtin_mul_overflow(bytes, axis.get<uint64_t>(), &bytes))
      fail(subject, "a tensor inside the file", "a larger shape");
  }
  if (!offsets.is_array() || offsets.size() != 2 || !is_count(offsets[0]) || !is_count(offsets[1]))
    fail(subject, "two data_offsets", shown(offsets));
  range = {offsets[0].get<uint64_t>(), offsets[1].get<uint64_t>()};
  if (range.first > range.second || range.second > size)
    fail(subject, "data_offsets inside the " + std::to_string(size) + " bytes of data",
         std::to_string(range.first) + " to " + std::to_string(range.second));
  if (range.second - range.first != bytes)
    fail(subject, std::to_string(bytes) + " bytes for its shape and dtype",
         std::to_string(range.second - range.first));
  tensor.bytes = data + range.first;
  return tensor;
}

// Fills in the tensors and returns the text of the model's description.
std::string read_safetensors(const unsigned char* data, size_t size, ModelFile& file) {
  const std::string& label = file.label;
  uint64_t header = 0;
  if (size < 8) fail(label, "a safetensors file", std::to_string(size) + " bytes");
  for (int i = 7; i >= 0; --i) header = header << 8 | data[i];
  if (header > size - 8)
    fail(label, "a header inside the file's " + std::to_string(size) + " bytes",
         std::to_string(header) + " bytes");
  if (header > kMostHeader)
    fail(label, "a header of at most 4 MiB", std::to_string(header) + " bytes");
  const char* text = reinterpret_cast<const char*>(data + 8);
  const Json root = parse(text, text + header, label + ": header");
  const uint64_t rest = size - 8 - header;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") continue;
    std::pair<uint64_t, uint64_t> range;
    file.tensors[name] = read_tensor(entry, label + ": tensor '" + name.substr(0, 100) + "'",
                                     data + 8 + header, rest, range);
    ranges.push_back(range);
  }
  // The tensors lie side by side: no gap, no overlap, nothing behind them.
  std::sort(ranges.begin(), ranges.end());
  uint64_t at = 0;
  for (const auto& range : ranges) {
    if (range.first != at)
      fail(label, "tensors side by side",
           "data_offsets " + std::to_string(range.first) + " after " + std::to_string(at));
    at = range.second;
  }
  if (at != rest)
    fail(label, "tensors that fill the file's " + std::to_string(rest) + " bytes of data",
         std::to_string(at));
  const auto metadata = root.find("__metadata__");
  if (metadata == root.end() || !metadata->is_object() || !metadata->contains("tidegate") ||
      !(*metadata)["tidegate"].is_string())
    throw Error(label +
                ": expected metadata with an entry 'tidegate', got none: this file holds tensors "
                "without a model");
  return (*metadata)["tidegate"].get<std::string>();
}

// ---- The description ---------------------------------------------------------------------------

void require_keys(const Json& object, const std::string& subject,
                  std::initializer_list<const char*> required, const char* optional = "") {
  if (!object.is_object()) fail(subject, "an object", shown(object));
  for (const char* key : required)
    if (!object.contains(key)) throw Error(subject + ": expected the key '" + key + "', got none");
  for (const auto& [key, value] : object.items())
    if (key != optional && std::find(required.begin(), required.end(), key) == required.end())
      throw Error(subject + ": expected keys of the format, got '" + key.substr(0, 60) + "'");
}

std::string read_string(const Json& object, const char* key, const std::string& subject) {
  const Json& value = object[key];
  if (!value.is_string()) fail(subject, std::string(key) + " to be a string", shown(value));
  return value.get<std::string>();
}

constexpr const char *kNumber = "number", *kSize = "size", *kFlag = "flag", *kText = "text",
                     *kLayer = "layer";
struct Key {
  const char *name, *kind;
};
const std::map<std::string, std::vector<Key>>& keys_of_classes() {
  static const auto all = [] {
    const std::vector<Key> simple = {{"units", kSize},
                                     {"activation", kText},
                                     {"use_bias", kFlag},
                                     {"return_sequences", kFlag},
                                     {"go_backwards", kFlag},
                                     {"stateful", kFlag},
                                     {"zero_output_for_mask", kFlag}};
    std::vector<Key> gated = simple;
    gated.push_back({"recurrent_activation", kText});
    std::vector<Key> gru = gated;
    gru.push_back({"reset_after", kFlag});
    return std::map<std::string, std::vector<Key>>{
        {"LSTM", gated},
        {"GRU", gru},
        {"SimpleRNN", simple},
        {"DualStateGRU", gated},
        {"CoupledLSTM", gated},
        {"Dense", {{"units", kSize}, {"activation", kText}, {"use_bias", kFlag}}},
        {"Embedding", {{"input_dim", kSize}, {"output_dim", kSize}, {"mask_zero", kFlag}}},
        {"Masking", {{"mask_value", kNumber}}},
        {"Activation", {{"activation", kText}}},
        {"Dropout", {{"rate", kNumber}}},
        {"Flatten", {}},
        {"Bidirectional", {{"merge_mode", kText}, {"layer", kLayer}, {"backward_layer", kLayer}}},
        {"TimeDistributed", {{"layer", kLayer}}}};
  }();
  return all;
}

LayerEntry read_layer(const Json& json, const std::string& where) {
  require_keys(json, where, {"class_name", "name", "config"});
  LayerEntry entry;
  entry.class_name = read_string(json, "class_name", where);
  read_string(json, "name", where);
  const auto known = keys_of_classes().find(entry.class_name);
  if (known == keys_of_classes().end()) {
    std::string all;
    for (const auto& row : keys_of_classes()) all += (all.empty() ? "" : ", ") + row.first;
    fail(where, "class_name to be one of " + all, shown(json["class_name"]));
  }
  entry.subject = where + " (" + entry.class_name + ")";
  const Json& config = json["config"];
  if (!config.is_object()) fail(entry.subject, "config to be an object", shown(config));
  const std::map<std::string, int64_t*> sizes = {
      {"units", &entry.units}, {"input_dim", &entry.input_dim}, {"output_dim", &entry.output_dim}};
  const std::map<std::string, bool*> flags = {{"use_bias", &entry.use_bias},
                                              {"return_sequences", &entry.return_sequences},
                                              {"go_backwards", &entry.go_backwards},
                                              {"stateful", &entry.stateful},
                                              {"zero_output_for_mask", &entry.zero_output_for_mask},
                                              {"reset_after", &entry.reset_after},
                                              {"mask_zero", &entry.mask_zero}};
  const std::map<std::string, std::string*> texts = {
      {"activation", &entry.activation},
      {"recurrent_activation", &entry.recurrent_activation},
      {"merge_mode", &entry.merge_mode}};
  const std::map<std::string, double*> numbers = {{"mask_value", &entry.mask_value},
                                                  {"rate", &entry.rate}};
  const std::map<std::string, std::vector<LayerEntry>*> layers = {
      {"layer", &entry.layer}, {"backward_layer", &entry.backward_layer}};
  for (const Key& key : known->second) {
    if (!config.contains(key.name))
      throw Error(entry.subject + ": expected the key '" + key.name + "', got none");
    const Json& value = config[key.name];
    const std::string name = key.name;
    if (key.kind == kSize) {
      if (!is_count(value) || value.get<int64_t>() < 1 || value.get<int64_t>() > kMostSize)
        fail(entry.subject, name + " from 1 to 2^31", shown(value));
      *sizes.at(name) = value.get<int64_t>();
    } else if (key.kind == kFlag) {
      if (!value.is_boolean()) fail(entry.subject, name + " to be true or false", shown(value));
      *flags.at(name) = value.get<bool>();
    } else if (key.kind == kText) {
      *texts.at(name) = read_string(config, key.name, entry.subject);
    } else if (key.kind == kNumber) {
      if (!value.is_number()) fail(entry.subject, name + " to be a number", shown(value));
      *numbers.at(name) = value.get<double>();
    } else {
      layers.at(name)->push_back(read_layer(value, entry.subject + ": " + name));
    }
  }
  if (config.size() != known->second.size())
    for (const auto& [name, value] : config.items())
      if (std::none_of(known->second.begin(), known->second.end(),
                       [&, n = name](const Key& key) { return n == key.name; }))
        throw Error(entry.subject + ": expected keys of the format, got '" + name.substr(0, 60) +
                    "'");
  return entry;
}

void read_description(const std::string& text, ModelFile& file) {
  const std::string& label = file.label;
  const Json root = parse(text.data(), text.data() + text.size(), label + ": metadata 'tidegate'");
  if (!root.contains("format_version"))
    throw Error(label + ": expected the key 'format_version', got none");
  if (root["format_version"] != 1)
    fail(label, "format_version 1",
         shown(root["format_version"]) + "; a newer tidegate may read it");
  require_keys(root, label, {"format_version", "model", "test_vector"}, "producer");

  const Json& model = root["model"];
  const std::string subject = label + ": model";
  require_keys(model, subject, {"class_name", "name", "dtype", "batch_input_shape", "layers"});
  if (model["class_name"] != "Sequential")
    fail(subject, "class_name Sequential", shown(model["class_name"]));
  read_string(model, "name", subject);
  const std::string dtype = read_string(model, "dtype", subject);
  if (dtype != "float32" && dtype != "float64")
    fail(subject, "dtype float32 or float64", shown(model["dtype"]));
  file.is_double = dtype == "float64";
  const Json& shape = model["batch_input_shape"];
  if (!shape.is_array() || shape.size() < 2 || shape.size() > 16)
    fail(subject, "batch_input_shape of 2 to 16 axes", shown(shape));
  for (const Json& axis : shape) {
    if (!axis.is_null() &&
        (!is_count(axis) || axis.get<int64_t>() < 1 || axis.get<int64_t>() > kMostSize))
      fail(subject, "batch_input_shape of sizes from 1 to 2^31 and null", shown(axis));
    file.batch_input_shape.push_back(axis.is_null() ? -1 : axis.get<int64_t>());
  }
  const Json& layers = model["layers"];
  if (!layers.is_array() || layers.empty()) fail(subject, "a list of layers", shown(layers));
  for (size_t i = 0; i < layers.size(); ++i)
    file.layers.push_back(read_layer(layers[i], label + ": layers[" + std::to_string(i) + "]"));

  const Json& vector = root["test_vector"];
  const std::string test = label + ": test_vector";
  require_keys(vector, test, {"input", "output", "tolerance"});
  for (const char* key : {"input", "output"}) {
    const std::string name = std::string("test_vector.") + key;
    if (vector[key] != name)
      fail(test, std::string(key) + " to be '" + name + "'", shown(vector[key]));
    if (!file.tensors.count(name))
      throw Error(test + ": expected a tensor '" + name + "', got none");
  }
  const Json& tolerance = vector["tolerance"];
  if (!tolerance.is_number() || !(tolerance.get<double>() > 0) || !(tolerance.get<double>() < 1))
    fail(test, "a tolerance between 0 and 1", shown(tolerance));
  file.tolerance = tolerance.get<double>();
}

}  // namespace

int64_t FileTensor::count() const {  // fits: the bytes are in memory
  uint64_t n = 1;
  for (int64_t axis : shape) n *= static_cast<uint64_t>(axis);
  return static_cast<int64_t>(n);
}

ModelFile read_model_file(const unsigned char* data, size_t size, const std::string& label) {
  ModelFile file;
  file.label = label;
  file.size = size;
  read_description(read_safetensors(data, size, file), file);
  return file;
}

}  // namespace tidegate
