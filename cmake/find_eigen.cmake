# Finds Eigen's headers: a system package, or the PyPI package cmeel-eigen, which a build through pip
# installs below <site-packages>/cmeel.prefix. scikit-build-core puts only <site-packages> itself on
# CMAKE_PREFIX_PATH, hence the hints. Only the include folder is used: Eigen's own target would also
# bring its compile definitions to targets that never see Eigen.
#
# Sets TIDEGATE_EIGEN_INCLUDE_DIR.

cmake_path(CONVERT "$ENV{CMAKE_PREFIX_PATH}" TO_CMAKE_PATH_LIST tidegate_cmeel_prefixes)
list(PREPEND tidegate_cmeel_prefixes ${CMAKE_PREFIX_PATH})
list(TRANSFORM tidegate_cmeel_prefixes APPEND "/cmeel.prefix")
find_package(Eigen3 3.4 QUIET CONFIG HINTS ${tidegate_cmeel_prefixes})
if(NOT TARGET Eigen3::Eigen)
  # A version file of Eigen 3 answers a request for 3.4 only with 3.x; Eigen 5 is asked for by name.
  find_package(Eigen3 5 QUIET CONFIG HINTS ${tidegate_cmeel_prefixes})
endif()
if(NOT TARGET Eigen3::Eigen)
  message(
    FATAL_ERROR
      "Eigen >= 3.4 was not found. Build through pip (`pip install .`), which brings it, or install it: "
      "`pip install cmeel-eigen==3.4.1` and -DCMAKE_PREFIX_PATH=<site-packages>, or your system's "
      "package (Debian: libeigen3-dev).")
endif()
get_target_property(TIDEGATE_EIGEN_INCLUDE_DIR Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
message(STATUS "tidegate: Eigen ${Eigen3_VERSION} in ${TIDEGATE_EIGEN_INCLUDE_DIR}")
