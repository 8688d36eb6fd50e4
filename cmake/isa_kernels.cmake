# The kernels: cpp/src/kernels/kernels.cpp compiled once per instruction set and scalar type, each
# into an OBJECT library of its own. Eigen's templates have weak symbols whose names do not tell the
# instruction set; the linker would merge them and one path would silently run another's code (or
# crash on an old CPU). So Eigen's namespace is renamed per instruction set, our code lives in
# tidegate::<isa>, everything is hidden, and tests/cpp/check_isa_objects.py proves the result.

# tidegate_isas: name and flags of every instruction set of this architecture, best first.
# -march comes first in each row so that a -march=native in the user's CXXFLAGS cannot leak into it.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(tidegate_isas avx512 avx2 sse2)
  set(tidegate_flags_sse2 -march=x86-64)
  set(tidegate_flags_avx2 -march=x86-64 -mavx2 -mfma)
  set(tidegate_flags_avx512
      -march=x86-64 -mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl -mprefer-vector-width=512)
else()
  # Eigen picks the packets of the baseline by itself (NEON with FMA on arm64).
  set(tidegate_isas neon)
  set(tidegate_flags_neon "")
endif()

# Fewer of them make a smaller library, which then needs a CPU that has one of them.
set(TIDEGATE_BUILD_ISAS "${tidegate_isas}" CACHE STRING "Instruction sets to build")
foreach(isa IN LISTS TIDEGATE_BUILD_ISAS)
  if(NOT isa IN_LIST tidegate_isas)
    message(FATAL_ERROR "TIDEGATE_BUILD_ISAS: expected some of `${tidegate_isas}`, got `${isa}`.")
  endif()
endforeach()
string(REPLACE ";" "|" wanted_isas "${TIDEGATE_BUILD_ISAS}")
list(FILTER tidegate_isas INCLUDE REGEX "^(${wanted_isas})$") # best first, as above

set(tidegate_kernel_options
    # Results must not depend on what the compiler chooses to contract: every FMA is written out.
    -ffp-contract=off
    -fno-math-errno
    -fno-trapping-math
    # Kernels neither throw nor are thrown through, and carry no personality symbols to be shared.
    -fno-exceptions
    -fno-rtti
    -Wno-ignored-attributes # packet types as template arguments
    $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>
    $<$<CXX_COMPILER_ID:GNU>:-fno-semantic-interposition>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>
    # GCC 12 finds its own AVX-512 header at fault.
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
if(TIDEGATE_SANITIZE)
  # Everything is inlined into the hot loops: these three checks of every access would double the time to compile.
  list(APPEND tidegate_kernel_options -O1 -fno-sanitize=null,alignment,object-size)
else()
  # Debug builds too: Eigen at -O0 is a hundred times slower. Hot loops are unrolled by hand where it pays; -O3 would
  # only unroll the rest, for half as much code again. Clang does that, and vectorizes it, at -O2 too.
  list(APPEND tidegate_kernel_options -O2
       $<$<CXX_COMPILER_ID:Clang,AppleClang>:-fno-unroll-loops$<SEMICOLON>-fno-vectorize$<SEMICOLON>-fno-slp-vectorize>)
endif()

# Every cell is one header kernels/cells/<name>.hpp; every instruction set one row above. Kernels and
# dispatch read both lists from generated headers, so that adding a cell is adding a file.
function(tidegate_write_list file macro)
  set(rows "")
  foreach(name IN LISTS ARGN)
    string(APPEND rows " X(${name})")
  endforeach()
  file(CONFIGURE OUTPUT "${file}" CONTENT "#define ${macro}(X)${rows}\n" @ONLY)
endfunction()

# Adds the kernel objects of this architecture. Sets, in the caller's scope, TIDEGATE_ISAS (names) and
# TIDEGATE_KERNEL_TARGETS (one OBJECT library per instruction set and scalar type).
function(tidegate_add_isa_kernels)
  set(kernels_dir "${PROJECT_SOURCE_DIR}/cpp/src/kernels")
  set(generated_dir "${PROJECT_BINARY_DIR}/generated")

  file(GLOB cell_files CONFIGURE_DEPENDS "${kernels_dir}/cells/*.hpp")
  set(cells "")
  set(includes "")
  foreach(cell_file IN LISTS cell_files)
    get_filename_component(cell "${cell_file}" NAME_WE)
    list(APPEND cells ${cell})
    string(APPEND includes "#include \"kernels/cells/${cell}.hpp\"\n")
  endforeach()
  tidegate_write_list("${generated_dir}/cell_list.hpp" TIDEGATE_FOR_EACH_CELL ${cells})
  file(CONFIGURE OUTPUT "${generated_dir}/cell_includes.hpp" CONTENT "${includes}" @ONLY)
  tidegate_write_list("${generated_dir}/isa_list.hpp" TIDEGATE_FOR_EACH_ISA ${tidegate_isas})

  set(targets "")
  foreach(isa IN LISTS tidegate_isas)
    foreach(scalar float double)
      set(target tidegate_kernels_${isa}_${scalar})
      add_library(${target} OBJECT "${kernels_dir}/kernels.cpp")
      target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/cpp/src" "${generated_dir}")
      target_include_directories(${target} SYSTEM PRIVATE "${TIDEGATE_EIGEN_INCLUDE_DIR}")
      target_compile_features(${target} PRIVATE cxx_std_17)
      target_compile_definitions(
        ${target}
        PRIVATE TIDEGATE_ISA_NS=${isa} TIDEGATE_SCALAR=${scalar} Eigen=tidegate_eigen_${isa}
                EIGEN_DONT_PARALLELIZE EIGEN_MPL2_ONLY EIGEN_FAST_MATH=0) # correctly rounded square roots
      target_compile_options(${target} PRIVATE ${TIDEGATE_WARNINGS} ${tidegate_kernel_options}
                                               ${tidegate_flags_${isa}})
      # No link-time optimisation: it would merge code across instruction sets.
      set_target_properties(
        ${target}
        PROPERTIES POSITION_INDEPENDENT_CODE ON
                   CXX_EXTENSIONS OFF
                   CXX_VISIBILITY_PRESET hidden
                   VISIBILITY_INLINES_HIDDEN ON
                   INTERPROCEDURAL_OPTIMIZATION OFF)
      list(APPEND targets ${target})
    endforeach()
  endforeach()

  set(TIDEGATE_ISAS ${tidegate_isas} PARENT_SCOPE)
  set(TIDEGATE_KERNEL_TARGETS ${targets} PARENT_SCOPE)
endfunction()
