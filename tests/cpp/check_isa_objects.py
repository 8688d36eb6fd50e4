#!/usr/bin/env python3
"""Proves that no code can be shared between the instruction sets of one binary.

Each kernel object is compiled with other instruction-set flags. A symbol that two of them define
under one name (a template of Eigen or of the standard library) is merged by the linker, and one
path then runs code of the other: slow at best, an illegal instruction at worst. So the mangled name
of every defined, non-local symbol must carry the instruction set: our namespace `tidegate::<isa>`
or the renamed Eigen `tidegate_eigen_<isa>`. The only exception is the entry point. Nothing may run
when the library is loaded, that is, before the instruction set is chosen: no `.init_array`.

usage: check_isa_objects.py ISA=OBJECT...
       check_isa_objects.py --self-test --compiler C++ --eigen INCLUDE_DIR
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def _mangled(name: str) -> str:
    return f"{len(name)}{name}"


def violations(isa: str, object_file: Path) -> list[str]:
    """What in an object file could be shared with, or run before, another object's code."""
    tags = (_mangled("tidegate") + _mangled(isa), _mangled(f"tidegate_eigen_{isa}"))
    entries = "|".join(_mangled(f"kernels_{isa}_{scalar}") for scalar in ("float", "double"))
    entry = re.compile(f"_ZN8tidegate({entries})Ev")
    found = []
    table = subprocess.run(
        ["nm", "--defined-only", "--format=posix", str(object_file)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in table.splitlines():
        name, kind = line.split()[:2]
        local = kind.islower() and kind not in "uvw"  # u: GNU unique, merged process-wide
        if local or name.startswith("DW.ref.") or entry.fullmatch(name):
            continue
        if not any(tag in name for tag in tags):
            found.append(f"symbol without the tag of {isa}: {name} ({kind})")
    sections = subprocess.run(
        ["readelf", "--section-headers", "--wide", str(object_file)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found += [
        f"section {name}: code that runs at load time"
        for name in sorted(set(re.findall(r"\.(?:init_array|ctors)\b", sections)))
    ]
    return found


_EIGEN_PRODUCT = """
#include <Eigen/Core>
namespace tidegate { namespace avx2 { namespace {
using M = Eigen::MatrixXf;
void run(const float* a, float* b, int n) {
  Eigen::Map<M>(b, n, n).noalias() += Eigen::Map<const M>(a, n, n) * Eigen::Map<const M>(a, n, n);
}
} }
auto kernels_avx2_float() -> void (*)(const float*, float*, int) { return avx2::run; }
}
"""
_STD_VECTOR = """
#include <vector>
template class std::vector<float>;  // out of line with every compiler, whatever it would inline
namespace tidegate { namespace avx2 { void run(std::vector<float>& v) { v.push_back(1); } } }
"""
_LOAD_TIME = """
float f();
namespace tidegate { namespace avx2 { namespace { float constant = f(); }
float run() { return constant; } } }
"""
# name -> (source, extra flags, is it acceptable?)
_SELF_TESTS = {
    "Eigen renamed": (_EIGEN_PRODUCT, ["-DEigen=tidegate_eigen_avx2"], True),
    "Eigen not renamed": (_EIGEN_PRODUCT, [], False),
    "Eigen renamed for another instruction set": (
        _EIGEN_PRODUCT,
        ["-DEigen=tidegate_eigen_sse2"],
        False,
    ),
    "std::vector": (_STD_VECTOR, [], False),
    "a constant computed at load time": (_LOAD_TIME, [], False),
}


def self_test(compiler: str, eigen: str) -> int:
    """Checks the checker: it must accept the isolated object and reject each way to leak."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, flags, acceptable) in _SELF_TESTS.items():
            code, object_file = Path(folder, "kernel.cpp"), Path(folder, "kernel.o")
            code.write_text(source)
            subprocess.run(
                [compiler, "-std=c++17", "-O2", "-fPIC", "-mavx2", "-mfma", "-fno-exceptions", "-w"]
                + ["-isystem", eigen, *flags, "-c", str(code), "-o", str(object_file)],
                check=True,
            )
            accepted = not violations("avx2", object_file)
            print(f"self-test: {name}: {'accepted' if accepted else 'rejected'}")
            failures += accepted != acceptable
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="*", metavar="ISA=OBJECT")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--eigen", default="/usr/include/eigen3", help="include folder")
    arguments = parser.parse_args()
    if arguments.self_test:
        return 1 if self_test(arguments.compiler, arguments.eigen) else 0
    if not arguments.objects:
        parser.error("expected objects as ISA=OBJECT, got none")
    failures = 0
    for pair in arguments.objects:
        isa, object_file = pair.split("=", 1)
        found = violations(isa, Path(object_file))
        failures += len(found)
        print(f"{isa}: {object_file}: {f'{len(found)} violations' if found else 'isolated'}")
        print("".join(f"  {line}\n" for line in found), end="")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
