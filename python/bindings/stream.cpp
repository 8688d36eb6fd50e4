#include "tidegate/stream.hpp"

#include <cstring>
#include <mutex>

#include "arrays.hpp"
#include "module.hpp"

namespace tidegate::python {
namespace {

// Arrays of one step, whose cost counts: NumPy's own fields instead of attributes.
const py::detail::PyArray_Proxy* proxy(PyObject* object) { return py::detail::array_proxy(object); }

const char* type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

// What a step takes and gives: dtype and shape.
struct Form {
  explicit Form(bool is_double)
      : is_double(is_double), dtype(is_double ? py::dtype::of<double>() : py::dtype::of<float>()) {}
  const bool is_double;
  const py::dtype dtype;

  bool holds(PyObject* object, int64_t rows, int64_t columns) const {
    if (!py::detail::npy_api::get().PyArray_Check_(object)) return false;
    const auto* array = proxy(object);
    return has_dtype(array->descr) && array->nd == 2 && array->dimensions[0] == rows &&
           array->dimensions[1] == columns &&
           (array->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_);
  }

  // NumPy has one descriptor of each dtype, but arrays that were unpickled have copies.
  bool has_dtype(PyObject* descriptor) const {
    return descriptor == dtype.ptr() || dtype.equal(py::handle(descriptor));
  }

  // x as it is, or converted. ids may come without the axis of features.
  py::array input(const std::string& subject, const py::handle& x, int64_t rows,
                  int64_t columns) const {
    if (holds(x.ptr(), rows, columns)) return py::reinterpret_borrow<py::array>(x);
    const auto given = py::array::ensure(x);
    if (!given || !std::strchr("fiub", given.dtype().kind())) {
      PyErr_Clear();
      throw py::type_error(subject + ": expected x to be an array of numbers, got " +
                           type_name(x.ptr()));
    }
    const Shape wanted{rows, columns}, shape = shape_of(given);
    if (shape != wanted && !(columns == 1 && shape == Shape{rows}))
      throw py::value_error(subject + ": expected x with shape " + to_string(wanted) + ", got " +
                            to_string(shape));
    const py::array converted =
        is_double
            ? py::array(
                  py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(given))
            : py::array(
                  py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(given));
    return converted;
  }

  // Where results go: `out`, or a new array.
  py::object output(const std::string& subject, const py::handle& out, const void* x,
                    int64_t x_count, int64_t rows, int64_t columns) const {
    if (out.is_none()) {
      const py::ssize_t shape[2] = {rows, columns};
      auto& api = py::detail::npy_api::get();
      PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype.inc_ref().ptr(), 2,
                                                  shape, nullptr, nullptr, 0, nullptr);
      if (!array) throw py::error_already_set();
      return py::reinterpret_steal<py::object>(array);
    }
    if (!holds(out.ptr(), rows, columns) ||
        !(proxy(out.ptr())->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) {
      const std::string wanted =
          subject + ": expected out to be a writeable C-contiguous array of " +
          std::string(py::str(dtype)) + " with shape " + to_string({rows, columns}) + ", got ";
      if (!py::isinstance<py::array>(out)) throw py::type_error(wanted + type_name(out.ptr()));
      const auto array = py::reinterpret_borrow<py::array>(out);
      throw py::value_error(wanted + to_string(shape_of(array)) + " of " +
                            std::string(py::str(array.dtype())) +
                            (array.writeable() ? "" : ", read-only"));
    }
    const auto* y = static_cast<const char*>(static_cast<const void*>(proxy(out.ptr())->data));
    const auto* first = static_cast<const char*>(x);
    const int64_t size = is_double ? 8 : 4;
    if (y < first + x_count * size && first < y + rows * columns * size)
      throw py::value_error(subject +
                            ": expected out in memory of its own, got memory that x uses too");
    return py::reinterpret_borrow<py::object>(out);
  }
};

// Calls f with the two arrays' data as the model's type.
template <class F>
void with_data(const Form& form, const py::array& x, const py::object& y, F f) {
  void* to = proxy(y.ptr())->data;
  if (form.is_double)
    f(static_cast<const double*>(x.data()), static_cast<double*>(to));
  else
    f(static_cast<const float*>(x.data()), static_cast<float*>(to));
}

template <class T>
py::array state_of(const Stream& stream, int layer, int state) {
  py::array_t<T> value(Shape{stream.batch(), stream.state_size(layer)});
  stream.get_state(layer, state, value.mutable_data());
  return value;
}

struct BoundStream {
  BoundStream(const Model& model, int64_t batch) : stream(model, batch), form(stream.is_double()) {}

  py::object step(const py::handle& x_object, const py::handle& out) {
    static const std::string subject = "Stream.step";
    const int64_t rows = stream.batch(), columns = stream.input_size();
    const py::array x = form.input(subject, x_object, rows, columns);
    py::object y = form.output(subject, out, x.data(), rows * columns, rows, stream.output_size());
    with_data(form, x, y, [&](auto* from, auto* to) {
      if (!stream.knows(from))
        throw py::value_error(subject + ": expected ids that the Embedding has, got others");
      stream.step(from, to);
    });
    return y;
  }

  void reset(const py::object& rows_object) {
    if (rows_object.is_none()) return stream.reset();
    const auto given = py::array::ensure(rows_object);
    if (!given || given.ndim() > 1 ||
        (given.size() > 0 && !std::strchr("iu", given.dtype().kind()))) {
      PyErr_Clear();
      throw py::type_error(
          std::string("Stream.reset: expected rows to be a list of row indices, got ") +
          type_name(rows_object.ptr()));
    }
    const auto rows =
        py::array_t<int64_t, py::array::c_style | py::array::forcecast>::ensure(given);
    for (py::ssize_t i = 0; i < rows.size(); ++i)
      if (rows.data()[i] < 0 || rows.data()[i] >= stream.batch())
        throw py::value_error("Stream.reset: expected rows from 0 to " +
                              std::to_string(stream.batch() - 1) + ", got " +
                              std::to_string(rows.data()[i]));
    for (py::ssize_t i = 0; i < rows.size(); ++i) stream.reset(rows.data()[i]);
  }

  py::list get_state() const {
    py::list layers;
    for (int layer = 0; layer < stream.layers(); ++layer) {
      py::list states;
      for (int s = 0; s < stream.states(layer); ++s)
        states.append(form.is_double ? state_of<double>(stream, layer, s)
                                     : state_of<float>(stream, layer, s));
      layers.append(states);
    }
    return layers;
  }

  void set_state(const py::object& value) {
    const auto list_of = [](const py::handle& object, int count, const std::string& what) {
      if (!py::isinstance<py::sequence>(object) || py::isinstance<py::array>(object) ||
          py::isinstance<py::str>(object))
        throw py::type_error("Stream.state: expected " + what + ", got " + type_name(object.ptr()));
      const auto list = py::reinterpret_borrow<py::sequence>(object);
      if (static_cast<int>(list.size()) != count)
        throw py::value_error("Stream.state: expected " + what + ", got " +
                              std::to_string(list.size()));
      return list;
    };
    const auto layers =
        list_of(value, stream.layers(),
                "a list for each of " + std::to_string(stream.layers()) + " recurrent layers");
    std::vector<py::array> arrays;
    for (int layer = 0; layer < stream.layers(); ++layer) {
      const auto states = list_of(layers[layer], stream.states(layer),
                                  std::to_string(stream.states(layer)) + " states in a layer");
      for (int s = 0; s < stream.states(layer); ++s)
        arrays.push_back(form.input("Stream.state", py::object(states[s]), stream.batch(),
                                    stream.state_size(layer)));
    }
    auto next = arrays.begin();
    for (int layer = 0; layer < stream.layers(); ++layer)
      for (int s = 0; s < stream.states(layer); ++s, ++next) {
        if (form.is_double)
          stream.set_state(layer, s, static_cast<const double*>(next->data()));
        else
          stream.set_state(layer, s, static_cast<const float*>(next->data()));
      }
  }

  Stream stream;
  Form form;
};

// Stream.step(x, out=None) by CPython's own calling convention: pybind11's dispatch would take
// longer than the step of a small model.
PyObject* step(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  try {
    PyObject *x = count > 0 ? arguments[0] : nullptr, *out = count > 1 ? arguments[1] : nullptr;
    const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    bool fits = count <= 2;
    for (Py_ssize_t i = 0; i < named; ++i) {
      PyObject* name = PyTuple_GET_ITEM(names, i);
      PyObject** slot = PyUnicode_CompareWithASCIIString(name, "out") == 0 ? &out
                        : PyUnicode_CompareWithASCIIString(name, "x") == 0 ? &x
                                                                           : nullptr;
      fits = fits && slot && !*slot;
      if (fits) *slot = arguments[count + i];
    }
    if (!fits || !x)
      throw py::type_error("Stream.step: expected the arguments x and out=None, got others");
    // The descriptor has checked that self is a Stream; one whose __init__ has not run holds
    // nothing.
    auto* instance = reinterpret_cast<py::detail::instance*>(self);
    auto* stream = instance->simple_layout
                       ? static_cast<BoundStream*>(instance->simple_value_holder[0])
                       : py::cast<BoundStream*>(py::handle(self));
    if (!stream)
      throw py::type_error(
          "Stream.step: expected a Stream that has been initialised, got one that has not");
    return stream->step(x, out ? out : Py_None).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}
PyMethodDef step_method = {
    "step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&step)),
    METH_FASTCALL | METH_KEYWORDS, "step($self, x, out=None)\n--\n\nOne step."};

struct BoundPool {
  BoundPool(const Model& model, int64_t capacity) : pool(model, capacity), form(pool.is_double()) {}

  using Ids = py::array_t<int64_t, py::array::c_style>;

  py::object step(const Ids& ids, const py::object& x_object, const py::object& out) {
    static const std::string subject = "StreamPool.step";
    const int64_t rows = ids.size(), columns = pool.input_size();
    const py::array x = form.input(subject, x_object, rows, columns);
    py::object y = form.output(subject, out, x.data(), rows * columns, rows, pool.output_size());
    const int64_t* numbers = ids.data();
    with_data(form, x, y,
              [&](auto* from, auto* to) { alone([&] { pool.step(numbers, rows, from, to); }); });
    return y;
  }
  int64_t open() {
    int64_t id = 0;
    alone([&] { id = pool.open(); });
    return id;
  }
  void close(int64_t id) {
    alone([&] { pool.close(id); });
  }
  void reset(const Ids& ids) {
    const int64_t* numbers = ids.data();
    const int64_t count = ids.size();
    alone([&] { pool.reset(numbers, count); });
  }
  int64_t size() {
    int64_t n = 0;
    alone([&] { n = pool.size(); });
    return n;
  }

  // Python threads take turns.
  template <class F>
  void alone(F f) {
    py::gil_scoped_release release;
    std::lock_guard<std::mutex> lock(mutex);
    f();
  }

  StreamPool pool;
  Form form;
  std::mutex mutex;
};

template <class T>
py::array predict(const Model& model, const py::array& given) {
  const auto x = py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(given);
  const py::ssize_t rows = x.ndim() > 0 ? x.shape(0) : 0, columns = model.input_size();
  const py::ssize_t steps = x.ndim() > 1 && rows > 0 ? x.size() / rows / columns : 0;
  if (x.ndim() < 2 || rows * steps * columns != x.size())
    throw py::value_error("Model.predict: expected x with shape (batch, time, " +
                          std::to_string(columns) + "), got " + to_string(shape_of(x)));
  Shape shape{rows};
  if (model.returns_sequences()) shape.push_back(steps);
  shape.push_back(model.output_size());
  py::array_t<T> y(shape);
  const T* from = x.data();
  T* to = y.mutable_data();
  py::gil_scoped_release release;
  model.predict(from, rows, steps, to);
  return y;
}

}  // namespace

void bind_stream(py::module_& m) {
  py::class_<Model>(m, "Model", "A model from a deployment file, without Python.")
      .def(py::init([](const py::object& source) {
             if (py::isinstance<py::bytes>(source)) {
               char* data = nullptr;
               py::ssize_t size = 0;
               if (PyBytes_AsStringAndSize(source.ptr(), &data, &size) != 0)
                 throw py::error_already_set();
               py::gil_scoped_release release;
               return Model::load(data, static_cast<size_t>(size));
             }
             const auto path = py::module_::import("os").attr("fspath")(source).cast<std::string>();
             py::gil_scoped_release release;
             return Model::load(path);
           }),
           py::arg("source"), "From a path, or from a file's bytes.")
      .def_property_readonly("input_size", &Model::input_size)
      .def_property_readonly("output_size", &Model::output_size)
      .def_property_readonly("returns_sequences", &Model::returns_sequences)
      .def(
          "predict",
          [](const Model& model, const py::array& x) {
            return model.is_double() ? predict<double>(model, x) : predict<float>(model, x);
          },
          py::arg("x"));
  auto stream = py::class_<BoundStream>(m, "Stream",
                                        "The states of a model that takes one step after another.");
  stream.def(py::init<const Model&, int64_t>(), py::arg("model"), py::arg("batch"))
      .def(py::init<const BoundStream&>(), py::arg("other"))
      .def("reset", &BoundStream::reset, py::arg("rows") = py::none())
      .def_property("state", &BoundStream::get_state, &BoundStream::set_state)
      .def_property_readonly("batch_size",
                             [](const BoundStream& self) { return self.stream.batch(); })
      .def_property_readonly("input_size",
                             [](const BoundStream& self) { return self.stream.input_size(); })
      .def_property_readonly("output_size",
                             [](const BoundStream& self) { return self.stream.output_size(); })
      .def_property_readonly("dtype", [](const BoundStream& self) { return self.form.dtype; });
  stream.attr("step") = py::reinterpret_steal<py::object>(
      PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(stream.ptr()), &step_method));
  py::class_<BoundPool>(m, "StreamPool", "Independent streams of one model that step in groups.")
      .def(py::init<const Model&, int64_t>(), py::arg("model"), py::arg("capacity"))
      .def("open", &BoundPool::open)
      .def("step", &BoundPool::step, py::arg("ids").noconvert(), py::arg("x"),
           py::arg("out") = py::none())
      .def("reset", &BoundPool::reset, py::arg("ids").noconvert())
      .def("close", &BoundPool::close, py::arg("id"))
      .def("__len__", &BoundPool::size)
      .def_property_readonly("capacity",
                             [](const BoundPool& self) { return self.pool.capacity(); });
}

}  // namespace tidegate::python
