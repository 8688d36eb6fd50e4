// Everything: models from files, streams, layers, threads.
#pragma once

#include "tidegate/error.hpp"
#include "tidegate/layers.hpp"
#include "tidegate/model.hpp"
#include "tidegate/optimizer.hpp"
#include "tidegate/runtime.hpp"
#include "tidegate/stream.hpp"
