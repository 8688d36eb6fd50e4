"""The layers, by Keras's names and with its meaning, and the bases for users' own."""

from .base import Layer, Wrapper, deserialize, serialize
from .basic import Activation, Dropout, Flatten, Input, InputLayer, Masking
from .bidirectional import Bidirectional
from .cells import StackedRNNCells
from .coupled_lstm import CoupledLSTM, CoupledLSTMCell
from .dense import Dense
from .dual_state_gru import DualStateGRU, DualStateGRUCell
from .embedding import Embedding
from .gru import GRU, GRUCell
from .lstm import LSTM, LSTMCell
from .recurrent import RNN
from .simple_rnn import SimpleRNN, SimpleRNNCell
from .time_distributed import TimeDistributed

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Bidirectional",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "Dense",
    "Dropout",
    "DualStateGRU",
    "DualStateGRUCell",
    "Embedding",
    "Flatten",
    "GRUCell",
    "Input",
    "InputLayer",
    "LSTMCell",
    "Layer",
    "Masking",
    "SimpleRNN",
    "SimpleRNNCell",
    "StackedRNNCells",
    "TimeDistributed",
    "Wrapper",
    "deserialize",
    "serialize",
]
