// Loading deployment files: sound ones, and everything that may be wrong with one.
#include <algorithm>
#include <fstream>
#include <memory>

#include "check.hpp"
#include "model_writer.hpp"
#include "tidegate/tidegate.h"

using tidegate::Error;
using tidegate::Model;
using writer::Tensor;

namespace {

Model load(const std::string& file) { return Model::load(file.data(), file.size()); }

// The reason for which a file is refused, or nothing.
std::string reason(const std::string& file) {
  try {
    load(file);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
void check_refused(const std::string& file, const std::string& part, int line) {
  const std::string why = reason(file);
  if (why.find(part) == std::string::npos || why.find("expected") == std::string::npos)
    check::fail(__FILE__, line, "expected an error with '" + part + "', got '" + why + "'");
}
#define CHECK_REFUSED(file, part) check_refused(file, part, __LINE__)

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A model of one Dense layer, of parts that a test may change.
struct Parts {
  std::string metadata = writer::description({writer::dense(3, "linear")}, 2, 0.1);
  std::vector<Tensor> tensors = {{"layers.0.kernel", {2, 3}, {1, 2, 3, 4, 5, 6}},
                                 {"layers.0.bias", {3}, {0, 0, 1}},
                                 {"test_vector.input", {1, 1, 2}, {1, 1}},
                                 {"test_vector.output", {1, 1, 3}, {5, 7, 10}}};
  std::string file() const { return writer::safetensors(metadata, tensors); }
};

}  // namespace

TEST(loads_and_predicts) {
  const Model model = load(Parts().file());
  CHECK(model.input_size() == 2 && model.output_size() == 3 && model.returns_sequences() &&
        !model.is_double());
  const float x[4] = {1, 0, 0, 2};
  float y[6];
  model.predict(x, 1, 2, y);
  const float expected[6] = {1, 2, 4, 8, 10, 13};
  for (int i = 0; i < 6; ++i) CHECK_NEAR(y[i], expected[i], 1e-6);
  const double x2[2] = {1, 1};
  double y2[3];
  model.predict(x2, 1, 1, y2);
  CHECK_NEAR(y2[2], 10, 1e-6);
  model.predict(x, 0, 1, y);  // no rows: nothing happens
  CHECK_THROWS(Error, model.predict(x, 1, 0, y));
  CHECK_THROWS(Error, model.predict(x, -1, 1, y));
  CHECK_THROWS(Error, model.predict(x, int64_t(1) << 62, 1 << 10, y));
}

TEST(a_path) {
  const std::string path = "test_model.safetensors";
  const std::string bytes = Parts().file();
  std::ofstream(path, std::ios::binary) << bytes;
  CHECK(Model::load(path).input_size() == 2);
  std::ofstream(path, std::ios::binary) << "";
  CHECK_THROWS(Error, Model::load(path));
  std::remove(path.c_str());
  CHECK_THROWS(Error, Model::load(path));
  CHECK_THROWS(Error, Model::load("."));
  CHECK_THROWS(Error, Model::load("/dev/zero"));
}

TEST(every_truncation_is_refused) {
  const std::string file = writer::stack({{"LSTM", 4}, {"Dense", 2}}, 3);
  CHECK(reason(file).empty());
  for (size_t size = 0; size < file.size(); ++size) CHECK(!reason(file.substr(0, size)).empty());
  CHECK_REFUSED(file + "x", "fill");
}

TEST(bit_flips_never_crash) {
  const std::string file = writer::stack({{"GRU", 3}, {"LSTM", 2}, {"Dense", 2}}, 2);
  int refused = 0;
  const size_t text = static_cast<size_t>(static_cast<unsigned char>(file[0]) |
                                          static_cast<unsigned char>(file[1]) << 8) +
                      8;
  for (size_t bit = 0; bit < text * 8; bit += 3) {
    std::string damaged = file;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    refused += !reason(damaged).empty();
  }
  CHECK(refused > 100);
}

TEST(the_container) {
  const std::string good = Parts().file();
  CHECK_REFUSED("", "safetensors");
  CHECK_REFUSED(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + good.substr(8), "header");
  CHECK_REFUSED(replaced(good, "\"F32\"", "\"F31\""), "dtype");
  CHECK_REFUSED(replaced(good, "\"shape\":[2,3]", "\"shape\":[2,2]"), "bytes");
  CHECK_REFUSED(replaced(good, "[0,24]", "[4,28]"), "side by side");
  CHECK_REFUSED(replaced(good, "[24,36]", "[12,24]"), "side by side");
  CHECK_REFUSED(replaced(good, "[0,24]", "[24,0]"), "offsets");
  CHECK_REFUSED(replaced(good, "\"shape\":[2,3]", "\"shape\":[-2]"), "shape");
  CHECK_REFUSED(replaced(good, "{\"__metadata__\"", "[\"__metadata__\""), "JSON");
  CHECK_REFUSED(replaced(good, "\"layers.0.bias\"", "\"layers.0.kernel\""), "twice");
  CHECK_REFUSED(replaced(good, "\"tidegate\":", "\"someones\":"), "'tidegate'");
  // Products that overflow, the second on its way to zero.
  Parts huge;
  huge.tensors[0].shape = {int64_t(1) << 61, int64_t(1) << 61};
  CHECK_REFUSED(huge.file(), "inside the file");
  huge.tensors[0].shape = {int64_t(1) << 61, 8, 0};
  CHECK_REFUSED(huge.file(), "inside the file");
  std::string deep(5000, '[');
  CHECK_REFUSED(writer::safetensors(deep, Parts().tensors), "deep");
  CHECK_REFUSED(writer::safetensors("{", Parts().tensors), "JSON");
}

TEST(the_description) {
  const auto with = [](const std::string& from, const std::string& to) {
    Parts parts;
    parts.metadata = replaced(parts.metadata, from, to);
    return parts.file();
  };
  CHECK_REFUSED(with("\"format_version\":1", "\"format_version\":2"), "format_version 1");
  CHECK_REFUSED(with("\"format_version\":1,", ""), "format_version");
  CHECK_REFUSED(with("\"format_version\":1,", "\"format_version\":1,\"more\":0,"), "more");
  CHECK_REFUSED(with("Sequential", "Functional"), "Sequential");
  CHECK_REFUSED(with("float32", "float16"), "dtype");
  CHECK_REFUSED(with("[null,null,2]", "[null,null,3]"), "test_vector");
  CHECK_REFUSED(with("[null,null,2]", "[null]"), "batch_input_shape");
  CHECK_REFUSED(with("[null,null,2]", "[null,-1,2]"), "batch_input_shape");
  CHECK_REFUSED(with("\"Dense\"", "\"Conv1D\""), "class_name");
  CHECK_REFUSED(with("\"units\":3", "\"units\":0"), "units");
  CHECK_REFUSED(with("\"units\":3", "\"units\":3.5"), "units");
  CHECK_REFUSED(with("\"units\":3", "\"units\":4000000000"), "units");
  CHECK_REFUSED(with("\"units\":3", "\"units\":2000000000"), "shape");
  CHECK_REFUSED(with("\"use_bias\":true", "\"use_bias\":1"), "use_bias");
  CHECK_REFUSED(with("\"use_bias\":true", "\"use_bias\":false"), "tensors");
  CHECK_REFUSED(with("linear", "quadratic"), "activation");
  CHECK_REFUSED(with("\"units\":3", "\"units\":3,\"rate\":1"), "rate");
  CHECK_REFUSED(with("\"tolerance\":0.1", "\"tolerance\":2.1"), "tolerance");
  CHECK_REFUSED(with("\"input\":\"test_vector.input\"", "\"input\":\"layers.0.kernel\""),
                "test_vector.input");
  Parts nested;
  std::string layer = writer::dense(3);
  for (int i = 0; i < 40; ++i) layer = writer::layer("TimeDistributed", "\"layer\":" + layer);
  nested.metadata = writer::description({layer}, 2, 0.1);
  CHECK_REFUSED(nested.file(), "deep");
}

TEST(the_tensors) {
  Parts parts;
  parts.tensors[0].shape = {3, 2};
  CHECK_REFUSED(parts.file(), "layers.0.kernel");
  parts = {};
  parts.tensors.erase(parts.tensors.begin() + 1);
  CHECK_REFUSED(parts.file(), "layers.0.bias");
  parts = {};
  parts.tensors.push_back({"layers.1.kernel", {1}, {0}});
  CHECK_REFUSED(parts.file(), "5");
  parts = {};
  parts.tensors[3].values[0] = 8;
  CHECK_REFUSED(parts.file(), "damaged");
  parts.tensors[3].values[0] = NAN;
  CHECK_REFUSED(parts.file(), "damaged");
  parts = {};
  parts.tensors[3].shape = {1, 3};
  CHECK_REFUSED(parts.file(), "output");
  parts = {};
  parts.tensors[2].shape = {0, 1, 2}, parts.tensors[2].values.clear();
  CHECK_REFUSED(parts.file(), "input");
  // Long rows of inputs times many units: more memory than such a file may take.
  parts = {};
  parts.metadata = writer::description({writer::dense(30000, "linear"), writer::dense(1)}, 1, 0.1);
  parts.tensors = {{"layers.0.kernel", {1, 30000}, std::vector<float>(30000)},
                   {"layers.0.bias", {30000}, std::vector<float>(30000)},
                   {"layers.1.kernel", {30000, 1}, std::vector<float>(30000)},
                   {"layers.1.bias", {1}, {0}},
                   {"test_vector.input", {20000, 1, 1}, std::vector<float>(20000)},
                   {"test_vector.output", {20000, 1, 1}, std::vector<float>(20000)}};
  CHECK_REFUSED(parts.file(), "small enough");
}

TEST(layers_that_do_not_fit) {
  Parts parts;
  parts.metadata = writer::description({writer::dense(3), writer::dense(3)}, 2, 0.1);
  parts.tensors.push_back({"layers.1.kernel", {4, 3}, std::vector<float>(12)});
  parts.tensors.push_back({"layers.1.bias", {3}, std::vector<float>(3)});
  CHECK_REFUSED(parts.file(), "4 features");
}

TEST(a_model_outlives_its_file) {
  auto file = std::make_unique<std::string>(writer::stack({{"LSTM", 4}}, 3));
  const Model model = load(*file);
  std::fill(file->begin(), file->end(), 'x');
  file.reset();
  const auto x = writer::random_values(3 * 5, 1);
  std::vector<float> y(4 * 5), again(4 * 5);
  model.predict(x.data(), 1, 5, y.data());
  const Model copy = model;
  copy.predict(x.data(), 5, 1, again.data());
  CHECK(std::equal(y.begin(), y.begin() + 4, again.begin()));
}
