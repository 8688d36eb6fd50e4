"""What holds for every test of a session."""

import os

# Keras judges results here. Its NumPy back-end is exact in float64 and compiles nothing; it is
# chosen once for the process, before anything imports Keras. Gradients of Keras come from JAX in a
# process of their own (reference/keras_gradients.py).
os.environ["KERAS_BACKEND"] = "numpy"
