#include "tidegate/tidegate_c.h"

#include <new>
#include <string>

#include "tidegate/tidegate.h"

struct tidegate_model {
  tidegate::Model model;
};
struct tidegate_stream {
  tidegate::Stream stream;
};
struct tidegate_pool {
  tidegate::StreamPool pool;
};

namespace {

thread_local std::string last_error;

// No exception crosses the boundary: f's result, or `failed` with the reason kept.
template <class Result, class F>
Result guarded(Result failed, F f) noexcept {
  try {
    try {
      return f();
    } catch (const std::bad_alloc&) {
      last_error = "memory: expected enough for the call, got none";
    } catch (const std::exception& error) {
      last_error = error.what();
    }
  } catch (...) {  // no memory for the message either
  }
  return failed;
}
template <class F>
int status(F f) noexcept {
  return guarded(-1, [&] {
    f();
    return 0;
  });
}
template <class Handle, class F>
Handle* made(F f) noexcept {
  return guarded(static_cast<Handle*>(nullptr), [&] { return new Handle{f()}; });
}

void check_layer(const tidegate::Stream& stream, int layer) {
  if (layer < 0 || layer >= stream.layers())
    throw tidegate::Error("stream layer: expected a number from 0 to " +
                          std::to_string(stream.layers() - 1) + ", got " + std::to_string(layer));
}
void check_state(const tidegate::Stream& stream, int layer, int state) {
  check_layer(stream, layer);
  if (state < 0 || state >= stream.states(layer))
    throw tidegate::Error("stream state: expected a number from 0 to " +
                          std::to_string(stream.states(layer) - 1) + ", got " +
                          std::to_string(state));
}
template <class T>
int get_state(const tidegate_stream* s, int layer, int state, T* value) {
  return status(
      [&] { check_state(s->stream, layer, state), s->stream.get_state(layer, state, value); });
}
template <class T>
int set_state(tidegate_stream* s, int layer, int state, const T* value) {
  return status(
      [&] { check_state(s->stream, layer, state), s->stream.set_state(layer, state, value); });
}

}  // namespace

const char* tidegate_version() { return tidegate::version(); }
const char* tidegate_error() { return last_error.c_str(); }
const char* tidegate_isa() {
  return guarded(static_cast<const char*>(nullptr), [] { return tidegate::isa(); });
}
int tidegate_set_num_threads(int n) {
  return status([&] { tidegate::set_num_threads(n); });
}
int tidegate_get_num_threads() {
  return guarded(-1, [] { return tidegate::get_num_threads(); });
}

tidegate_model* tidegate_model_load(const char* path) {
  return made<tidegate_model>([&] { return tidegate::Model::load(path); });
}
tidegate_model* tidegate_model_load_memory(const void* data, size_t size) {
  return made<tidegate_model>([&] { return tidegate::Model::load(data, size); });
}
void tidegate_model_free(tidegate_model* m) { delete m; }
int tidegate_model_is_double(const tidegate_model* m) { return m->model.is_double(); }
int64_t tidegate_model_input_size(const tidegate_model* m) { return m->model.input_size(); }
int64_t tidegate_model_output_size(const tidegate_model* m) { return m->model.output_size(); }
int tidegate_model_returns_sequences(const tidegate_model* m) {
  return m->model.returns_sequences();
}
int tidegate_model_predict_float(const tidegate_model* m, const float* input, int64_t batch,
                                 int64_t timesteps, float* output) {
  return status([&] { m->model.predict(input, batch, timesteps, output); });
}
int tidegate_model_predict_double(const tidegate_model* m, const double* input, int64_t batch,
                                  int64_t timesteps, double* output) {
  return status([&] { m->model.predict(input, batch, timesteps, output); });
}

tidegate_stream* tidegate_stream_new(const tidegate_model* m, int64_t batch) {
  return made<tidegate_stream>([&] { return tidegate::Stream(m->model, batch); });
}
tidegate_stream* tidegate_stream_copy(const tidegate_stream* s) {
  return made<tidegate_stream>([&] { return tidegate::Stream(s->stream); });
}
void tidegate_stream_free(tidegate_stream* s) { delete s; }
void tidegate_stream_step_float(tidegate_stream* s, const float* input, float* output) {
  s->stream.step(input, output);
}
void tidegate_stream_step_double(tidegate_stream* s, const double* input, double* output) {
  s->stream.step(input, output);
}
void tidegate_stream_reset(tidegate_stream* s) { s->stream.reset(); }
int tidegate_stream_reset_row(tidegate_stream* s, int64_t row) {
  return status([&] {
    if (row < 0 || row >= s->stream.batch())
      throw tidegate::Error("stream row: expected a number from 0 to " +
                            std::to_string(s->stream.batch() - 1) + ", got " + std::to_string(row));
    s->stream.reset(row);
  });
}
int64_t tidegate_stream_batch(const tidegate_stream* s) { return s->stream.batch(); }
int64_t tidegate_stream_output_size(const tidegate_stream* s) { return s->stream.output_size(); }
int tidegate_stream_layers(const tidegate_stream* s) { return s->stream.layers(); }
int tidegate_stream_states(const tidegate_stream* s, int layer) {
  return guarded(-1, [&] { return check_layer(s->stream, layer), s->stream.states(layer); });
}
int64_t tidegate_stream_state_size(const tidegate_stream* s, int layer) {
  return guarded(int64_t(-1),
                 [&] { return check_layer(s->stream, layer), s->stream.state_size(layer); });
}
int tidegate_stream_get_state_float(const tidegate_stream* s, int layer, int state, float* value) {
  return get_state(s, layer, state, value);
}
int tidegate_stream_get_state_double(const tidegate_stream* s, int layer, int state,
                                     double* value) {
  return get_state(s, layer, state, value);
}
int tidegate_stream_set_state_float(tidegate_stream* s, int layer, int state, const float* value) {
  return set_state(s, layer, state, value);
}
int tidegate_stream_set_state_double(tidegate_stream* s, int layer, int state,
                                     const double* value) {
  return set_state(s, layer, state, value);
}

tidegate_pool* tidegate_pool_new(const tidegate_model* m, int64_t capacity) {
  return made<tidegate_pool>([&] { return tidegate::StreamPool(m->model, capacity); });
}
void tidegate_pool_free(tidegate_pool* p) { delete p; }
int64_t tidegate_pool_open(tidegate_pool* p) {
  return guarded(int64_t(-1), [&] { return p->pool.open(); });
}
int tidegate_pool_close(tidegate_pool* p, int64_t id) {
  return status([&] { p->pool.close(id); });
}
int tidegate_pool_step_float(tidegate_pool* p, const int64_t* ids, int64_t count,
                             const float* input, float* output) {
  return status([&] { p->pool.step(ids, count, input, output); });
}
int tidegate_pool_step_double(tidegate_pool* p, const int64_t* ids, int64_t count,
                              const double* input, double* output) {
  return status([&] { p->pool.step(ids, count, input, output); });
}
int tidegate_pool_reset(tidegate_pool* p, const int64_t* ids, int64_t count) {
  return status([&] { p->pool.reset(ids, count); });
}
int64_t tidegate_pool_size(const tidegate_pool* p) { return p->pool.size(); }
