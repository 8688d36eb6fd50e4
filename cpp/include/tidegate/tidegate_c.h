/* The library in plain C: models, streams and pools behind opaque handles. See model.hpp and
 * stream.hpp for what they do.
 *
 * Functions that can fail return 0 for success and -1 for failure, or a null handle;
 * tidegate_error() then says why. Handles may go in any order: a stream keeps its model's weights
 * alive. None of the pointers may be null. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tidegate/export.hpp"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tidegate_model tidegate_model;
typedef struct tidegate_stream tidegate_stream;
typedef struct tidegate_pool tidegate_pool;

TIDEGATE_API const char* tidegate_version(void);
/* Why the latest failed call on this thread failed: `subject: expected ..., got ...`. Valid until
 * the next one. */
TIDEGATE_API const char* tidegate_error(void);
TIDEGATE_API const char* tidegate_isa(void); /* null where TIDEGATE_ISA cannot be had */
TIDEGATE_API int tidegate_set_num_threads(int n);
TIDEGATE_API int tidegate_get_num_threads(void);

/* Models. */
TIDEGATE_API tidegate_model* tidegate_model_load(const char* path);
TIDEGATE_API tidegate_model* tidegate_model_load_memory(const void* data, size_t size);
TIDEGATE_API void tidegate_model_free(tidegate_model* model);
TIDEGATE_API int tidegate_model_is_double(const tidegate_model* model);
TIDEGATE_API int64_t tidegate_model_input_size(const tidegate_model* model);
TIDEGATE_API int64_t tidegate_model_output_size(const tidegate_model* model);
TIDEGATE_API int tidegate_model_returns_sequences(const tidegate_model* model);
TIDEGATE_API int tidegate_model_predict_float(const tidegate_model* model, const float* input,
                                              int64_t batch, int64_t timesteps, float* output);
TIDEGATE_API int tidegate_model_predict_double(const tidegate_model* model, const double* input,
                                               int64_t batch, int64_t timesteps, double* output);

/* Streams. step, reset and the states make no allocation, no lock and no system call. */
TIDEGATE_API tidegate_stream* tidegate_stream_new(const tidegate_model* model, int64_t batch);
TIDEGATE_API tidegate_stream* tidegate_stream_copy(const tidegate_stream* stream);
TIDEGATE_API void tidegate_stream_free(tidegate_stream* stream);
TIDEGATE_API void tidegate_stream_step_float(tidegate_stream* stream, const float* input,
                                             float* output);
TIDEGATE_API void tidegate_stream_step_double(tidegate_stream* stream, const double* input,
                                              double* output);
TIDEGATE_API void tidegate_stream_reset(tidegate_stream* stream);
TIDEGATE_API int tidegate_stream_reset_row(tidegate_stream* stream, int64_t row);
TIDEGATE_API int64_t tidegate_stream_batch(const tidegate_stream* stream);
TIDEGATE_API int64_t tidegate_stream_output_size(const tidegate_stream* stream);
TIDEGATE_API int tidegate_stream_layers(const tidegate_stream* stream);
/* Of a recurrent layer: how many states, and their size; -1 where there is no such layer. */
TIDEGATE_API int tidegate_stream_states(const tidegate_stream* stream, int layer);
TIDEGATE_API int64_t tidegate_stream_state_size(const tidegate_stream* stream, int layer);
TIDEGATE_API int tidegate_stream_get_state_float(const tidegate_stream* stream, int layer,
                                                 int state, float* value);
TIDEGATE_API int tidegate_stream_get_state_double(const tidegate_stream* stream, int layer,
                                                  int state, double* value);
TIDEGATE_API int tidegate_stream_set_state_float(tidegate_stream* stream, int layer, int state,
                                                 const float* value);
TIDEGATE_API int tidegate_stream_set_state_double(tidegate_stream* stream, int layer, int state,
                                                  const double* value);

/* Pools. */
TIDEGATE_API tidegate_pool* tidegate_pool_new(const tidegate_model* model, int64_t capacity);
TIDEGATE_API void tidegate_pool_free(tidegate_pool* pool);
TIDEGATE_API int64_t tidegate_pool_open(tidegate_pool* pool); /* an id, or -1 */
TIDEGATE_API int tidegate_pool_close(tidegate_pool* pool, int64_t id);
TIDEGATE_API int tidegate_pool_step_float(tidegate_pool* pool, const int64_t* ids, int64_t count,
                                          const float* input, float* output);
TIDEGATE_API int tidegate_pool_step_double(tidegate_pool* pool, const int64_t* ids, int64_t count,
                                           const double* input, double* output);
TIDEGATE_API int tidegate_pool_reset(tidegate_pool* pool, const int64_t* ids, int64_t count);
TIDEGATE_API int64_t tidegate_pool_size(const tidegate_pool* pool);

#ifdef __cplusplus
}
#endif
