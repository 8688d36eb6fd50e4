"""The architecture's rules about who may include or import whom, checked on the sources."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CPP = ROOT / "cpp"
PACKAGE = ROOT / "python" / "tidegate"
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)

# Packages of the extras: whoever uses them imports them where they are needed, not with tidegate.
OPTIONAL = {
    *("jax", "keras", "matplotlib", "onnx", "onnxruntime", "openvino", "pandas", "scipy"),
    *("sklearn", "statsmodels", "tensorflow", "torch"),
}


def includes(path):
    return INCLUDE.findall(path.read_text())


def cpp_files(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix in {".h", ".hpp", ".cpp"})


def sources(*folders):
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for f in folders for p in cpp_files(f)]


@pytest.mark.parametrize("path", sources(CPP / "include"))
def test_public_headers_stand_alone(path):
    for _, name in includes(path):
        assert "/" not in name or name.startswith("tidegate/"), f"{path.name} includes {name}"


@pytest.mark.parametrize("path", sources(CPP / "src" / "kernels"))
def test_kernels_include_only_their_boundary(path):
    allowed = {"kernel_api.hpp", "team.hpp", "cell_list.hpp", "cell_includes.hpp"}
    # What these emit is merged across instruction sets by the linker.
    emitting = {"algorithm", "functional", "iostream", "map", "memory", "string", "vector"}
    kernels = CPP / "src" / "kernels"
    for quote, name in includes(path):
        if name.startswith("Eigen/"):
            assert path.name == "simd.hpp", f"{path.name} includes {name}; only simd.hpp may"
        elif quote == '"':
            own = (kernels / name).exists() or (path.parent / name).exists()
            own |= name.startswith("kernels/") and (kernels.parent / name).exists()
            assert own or name in allowed, f"{path.name} includes {name}"
        else:
            assert name not in emitting, f"{path.name} includes <{name}>"


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in sources(CPP / "src", ROOT / "python" / "bindings")
        if "kernels" not in p.values[0].parts
    ],
)
def test_nothing_else_sees_kernels_or_eigen(path):
    for _, name in includes(path):
        assert not name.startswith(("Eigen", "kernels/")), f"{path.name} includes {name}"
        if CPP in path.parents:
            assert not name.startswith(("pybind11", "Python.h", "numpy")), f"{name} in the library"


# The library's storeys: a file includes only what stands on its own or a lower one.
STOREYS = [
    {"error", "export", "kernel_api"},
    {"runtime", "team", "memory", "dispatch", "activation"},
    {"layers", "layer", "model_file", "optimizer"},
    {"graph", "model"},
    {"stream", "tidegate", "c_api", "tidegate_c"},
]


def test_library_storeys():
    for path in cpp_files(CPP / "src") + cpp_files(CPP / "include"):
        if "kernels" in path.parts:
            continue
        floor = next((i for i, names in enumerate(STOREYS) if path.stem in names), None)
        assert floor is not None, f"{path.name}: say in STOREYS where it belongs"
        above = set().union(*STOREYS[floor + 1 :])
        for _, name in includes(path):
            assert Path(name).stem not in above, f"{path.name} includes {name}"


def test_headers_have_no_cycle():
    headers = {path.name: path for path in cpp_files(CPP) if path.suffix != ".cpp"}
    assert_no_cycle(
        {
            name: {Path(n).name for _, n in includes(path)} & headers.keys()
            for name, path in headers.items()
        }
    )


def assert_no_cycle(edges):
    done, path = set(), []

    def visit(node):
        assert node not in path, " -> ".join([*path[path.index(node) :], node])
        if node not in done:
            path.append(node)
            for target in sorted(edges.get(node, set()) - {node}):
                visit(target)
            done.add(path.pop())

    for node in sorted(edges):
        visit(node)


# ------------------------------------------------------------------------------------- Python
def imports(path):
    """(`a.b` for `from a import b`, at module level?) of every import, relative ones resolved."""
    package = ("tidegate", *path.relative_to(PACKAGE).parent.parts)
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in lazy
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield ".".join([*base, alias.name]), node not in lazy


def unit(module):
    """The first-level part of the package that a module belongs to: `layers`, `models` ..."""
    parts = module.split(".")
    if parts[0] != "tidegate" or len(parts) < 2:
        return None
    exists = any((PACKAGE / f"{parts[1]}{suffix}").exists() for suffix in ("", ".py", ".pyi"))
    return parts[1] if exists else None


PYTHON = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def test_python_imports_have_no_cycle():
    edges = {}
    for path in PYTHON:
        for module, now in imports(path):
            if now and unit(module) and name_of(path) != "__init__":
                edges.setdefault(name_of(path), set()).add(unit(module))
    assert_no_cycle(edges)


# unit: what it must not import, not even late
FORBIDDEN = {
    "saving": {"models", "cli", "compare", "bench"},
    "layers": {"models", "optimizers", "losses", "cli", "compare", "bench"},
    "ops": {"models", "layers", "saving", "cli"},
    "optimizers": {"models", "layers", "saving", "cli"},
    "losses": {"models", "layers", "saving", "cli"},
    "metrics": {"models", "layers", "saving", "cli"},
    "callbacks": {"layers", "cli"},
    "models": {"cli", "compare", "bench"},
}


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_layers(path):
    for module, now in imports(path):
        assert unit(module) not in FORBIDDEN.get(name_of(path), set()), f"{path} imports {module}"
        assert not (now and module.split(".")[0] in OPTIONAL), f"{path} imports {module} at once"


def test_import_is_light():
    """`import tidegate` brings NumPy and nothing else that takes time to load."""
    code = "import sys, tidegate; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not set(loaded) & (OPTIONAL | {"h5py", "rich", "safetensors"})
