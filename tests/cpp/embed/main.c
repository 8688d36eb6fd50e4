/* A C program: the header is C, errors come as strings, and with a model's path it streams numbers
 * from its arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidegate/tidegate_c.h>

int main(int count, char** arguments) {
  tidegate_model* model = tidegate_model_load("/nowhere/model.safetensors");
  if (model || !strstr(tidegate_error(), "expected")) return 1;
  printf("tidegate %s on %s\n", tidegate_version(), tidegate_isa());
  if (count < 2) return 0;
  model = tidegate_model_load(arguments[1]);
  tidegate_stream* stream = model ? tidegate_stream_new(model, 1) : NULL;
  if (!stream) {
    fprintf(stderr, "%s\n", tidegate_error());
    return 1;
  }
  int64_t inputs = tidegate_model_input_size(model), outputs = tidegate_stream_output_size(stream);
  tidegate_model_free(model); /* the stream keeps what it needs */
  float *x = malloc(sizeof(float) * inputs), *y = malloc(sizeof(float) * outputs);
  for (int first = 2; first + inputs <= count; first += (int)inputs) {
    for (int64_t i = 0; i < inputs; ++i) x[i] = strtof(arguments[first + i], NULL);
    tidegate_stream_step_float(stream, x, y);
    for (int64_t i = 0; i < outputs; ++i) printf("%.9g\n", y[i]);
  }
  free(x), free(y);
  tidegate_stream_free(stream);
  return 0;
}
