# Finds the header nlohmann/json.hpp: a target of the surrounding project, a system package, or the
# PyPI package nlohmann-json, which installs it as <site-packages>/nlohmann_json/include. Only the
# reader of model files includes it; nothing of it reaches the library's interface.
#
# Sets TIDEGATE_JSON_INCLUDE_DIR.

if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json 3.10 QUIET CONFIG)
endif()
if(TARGET nlohmann_json::nlohmann_json)
  get_target_property(TIDEGATE_JSON_INCLUDE_DIR nlohmann_json::nlohmann_json
                      INTERFACE_INCLUDE_DIRECTORIES)
else()
  cmake_path(CONVERT "$ENV{CMAKE_PREFIX_PATH}" TO_CMAKE_PATH_LIST tidegate_json_prefixes)
  find_path(
    TIDEGATE_JSON_INCLUDE_DIR nlohmann/json.hpp
    HINTS ${CMAKE_PREFIX_PATH} ${tidegate_json_prefixes}
    PATH_SUFFIXES nlohmann_json/include)
endif()
if(NOT TIDEGATE_JSON_INCLUDE_DIR)
  message(
    FATAL_ERROR
      "nlohmann/json.hpp (>= 3.10) was not found. Build through pip (`pip install .`), which brings it, or "
      "install it: `pip install nlohmann-json` and -DCMAKE_PREFIX_PATH=<site-packages>, or your system's "
      "package (Debian: nlohmann-json3-dev).")
endif()
message(STATUS "tidegate: nlohmann/json.hpp in ${TIDEGATE_JSON_INCLUDE_DIR}")
