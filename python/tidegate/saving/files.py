"""What every file format here shares: guarded reading and atomic writing.

A model file may come from anywhere, so reading follows three rules, whatever the format:

* nothing in the file is executed, imported or unpickled, and nothing outside it is opened;
* memory taken is bounded by the size of the file (`MAX_EXPANSION` times it at most, and only
  where the file is compressed), checked on declared sizes before anything is allocated;
* whatever is refused is refused with a `ValueError` that names the part of the file.

Writing goes to a temporary name in the same folder, is flushed to the disk and then renamed
over the old file: a reader sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

# A compressed part may be this many times larger than the whole file. Weights hardly compress
# (1.1x), optimizer slots that are still zero compress up to 1000x but are a part of a file.
MAX_EXPANSION = 100
# Below this many bytes no ratio is looked at: a zeroed bias of a tiny model is no bomb.
FREE_BYTES = 1 << 20
# What h5py raises on damaged files, besides ValueError.
_DAMAGE = (OSError, RuntimeError, KeyError, TypeError, UnicodeError, OverflowError, struct.error)
# Built-in HDF5 filters, by their registered numbers: deflate, shuffle, fletcher32. Any other
# number would make the HDF5 library look for a plug-in to load.
_HDF5_FILTERS = frozenset({1, 2, 3})


def require_h5py(path: object) -> Any:
    """Return the h5py module, or raise an `ImportError` that says which file needs it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path}: reading or writing HDF5 needs the package h5py, which is not installed; "
            "`pip install h5py`, or use a `.safetensors` file"
        ) from error
    return h5py


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for reading and writing that becomes `path` when the block ends well.

    On any error the file at `path` stays what it was and the temporary one is removed.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(os.path.realpath(path))  # writes through a symbolic link, as open() does
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def parse_json(data: bytes | str, subject: str) -> dict[str, Any]:
    """Parse one JSON object; `subject` names it in errors.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deeply, a key given twice, or no object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise ValueError(f"keys given twice: {twice}")
        return result

    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{subject}: expected a JSON object, got one nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{subject}: expected a JSON object, got invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{subject}: expected a JSON object, got a {type(value).__name__}")
    return value


class ZipReader:
    """The members of a zip archive, read one by one under the rules of this module.

    Members are only ever read into memory, never extracted, so a path in a member's name is
    just a name.

    Raises:
        ValueError: no zip archive, a name given twice, an encrypted or overlong member.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._size = os.path.getsize(self.path)
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise ValueError(f"{self.path}: expected a zip archive, got {error}") from error
        names = self._archive.namelist()
        if len(set(names)) != len(names):
            self._archive.close()
            raise ValueError(f"{self.path}: expected every member once, got names given twice")
        self.names = names

    def __enter__(self) -> ZipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, name: str) -> bytes:
        """Return the content of member `name`."""
        if name not in self.names:
            raise ValueError(f"{self.path}: expected a member {name!r}, got only {self.names[:10]}")
        info = self._archive.getinfo(name)
        stored = min(info.compress_size, self._size)
        if info.file_size > max(FREE_BYTES, MAX_EXPANSION * stored):
            raise ValueError(
                f"{self.path}: member {name!r} declares {info.file_size} bytes but stores "
                f"{stored}; refusing a possible decompression bomb"
            )
        try:
            return self._archive.read(info)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
            raise ValueError(f"{self.path}: member {name!r} cannot be read: {error}") from error
        except Exception as error:  # zlib.error has no common base with the others
            raise ValueError(f"{self.path}: member {name!r} is damaged: {error}") from error


class Hdf5Reader:
    """An HDF5 file, read under the rules of this module.

    Only groups and numeric datasets that are stored in the file itself are followed: soft and
    external links, external storage, virtual datasets, filters that need a plug-in, and
    datasets that declare more than the file can hold are refused by name.

    Args:
        source: a binary file object that holds the whole file.
        size: bytes of the file, the measure of what may be allocated.
        label: how errors call the file.
    """

    def __init__(self, source: IO[bytes], size: int, label: str):
        h5py = require_h5py(label)
        self._h5py = h5py
        self.label = label
        self._stored_left = size
        self._declared_left = MAX_EXPANSION * size + FREE_BYTES
        self.size = size
        self._source = source
        try:
            self.root = h5py.File(source, "r")
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{label}: expected an HDF5 file, got {error}") from error

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Hdf5Reader:
        """Open the file at `path`; a missing file is an `OSError` as from `open`."""
        file = open(path, "rb")  # noqa: SIM115 - closed by __exit__
        try:
            return cls(file, os.fstat(file.fileno()).st_size, os.fspath(path))
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Hdf5Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.root.close()
        self._source.close()

    def children(self, group: Any) -> dict[str, Any]:
        """Return the groups and datasets of `group` by name, after checking their links."""
        return {name: self._child(group, name) for name in self._guard(lambda: list(group))}

    def group(self, parent: Any, path: str) -> Any | None:
        """Return the group at `path` under `parent`, or None where there is none."""
        found = self._walk(parent, path)
        if found is not None and not isinstance(found, self._h5py.Group):
            raise ValueError(f"{self.label}: expected a group at {path!r}, got a dataset")
        return found

    def array(self, parent: Any, path: str) -> np.ndarray:
        """Return the dataset at `path` under `parent` as an array of native byte order."""
        dataset = self._walk(parent, path)
        if not isinstance(dataset, self._h5py.Dataset):
            raise ValueError(f"{self.label}: expected a dataset at {path!r}, got none")
        subject = f"{self.label}: dataset {dataset.name!r}"
        self._guard(lambda: self._check_dataset(dataset, subject))
        value = self._guard(lambda: np.asarray(dataset[()]))
        if value.dtype.kind == "V":  # Keras marks bfloat16, which HDF5 does not know, by name
            return (value.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return value.astype(value.dtype.newbyteorder("="), copy=False)

    def shape(self, dataset: Any) -> tuple[int, ...]:
        """Return the declared shape of a node from `children`, which must be a dataset."""
        if not isinstance(dataset, self._h5py.Dataset):
            raise ValueError(f"{self.label}: expected a dataset at {dataset.name!r}, got a group")
        return tuple(self._guard(lambda: dataset.shape) or ())

    def datasets(self, group: Any | None = None) -> Iterator[tuple[str, Any]]:
        """Yield path and dataset of everything under `group` (the root by default)."""
        seen: set[int] = set()  # hard links can make groups contain themselves
        pending = [("", self.root if group is None else group)]
        while pending:
            path, node = pending.pop()
            if isinstance(node, self._h5py.Dataset):
                yield path, node
                continue
            address = self._guard(lambda node=node: self._h5py.h5o.get_info(node.id).addr)  # type: ignore[misc]
            if address in seen:
                continue
            seen.add(address)
            children = sorted(self.children(node).items(), reverse=True)
            pending += [(f"{path}/{name}" if path else name, child) for name, child in children]

    def holds_data(self, node: Any) -> bool:
        """Return whether a node from `children` is or contains a dataset."""
        return next(self.datasets(node), None) is not None

    def attribute(self, node: Any, name: str) -> Any | None:
        """Return the HDF5 attribute `name` of a node (bytes decoded), or None."""
        if not self._guard(lambda: name in node.attrs):
            return None
        handle = self._guard(lambda: self._h5py.h5a.open(node.id, name.encode()))
        count = math.prod(handle.shape or ())
        if count == 0:
            return []  # an empty list, which h5py writes with the type of numbers
        # HDF5 crashes on damaged sequences of variable length; nothing but text is read.
        kind = self._guard(handle.get_type)
        if not isinstance(kind, self._h5py.h5t.TypeStringID):
            raise ValueError(f"{self.label}: attribute {name!r}: expected text, got another type")
        declared = count * kind.get_size()
        if kind.is_variable_str():
            declared = self._guard(lambda: self._text_size(node, name, count))
        if declared > self.size:
            raise ValueError(
                f"{self.label}: attribute {name!r} declares {declared} bytes in a file of "
                f"{self.size}"
            )
        return _decoded(self._guard(lambda: node.attrs[name]), f"{self.label}: {name!r}")

    def _text_size(self, node: Any, name: str, count: int) -> int:
        """Return the bytes that texts of variable length declare, without reading them.

        HDF5 itself takes the memory a text declares before it looks whether the file has it,
        and offers no way to ask. Each text is stored as its length (4 bytes), the address of a
        heap (8) and an index (4), in the attribute's message of the object's header.
        """
        address = self._guard(lambda: self._h5py.h5o.get_info(node.id).addr)
        for body in self._header_messages(address, kind=0x0C):
            version, _, *sizes = struct.unpack_from("<BBHHH", body)
            offset = 9 if version == 3 else 8
            if version == 1:  # padded to multiples of 8
                sizes = [-(-size // 8) * 8 for size in sizes]
            if body[offset : offset + sizes[0]].split(b"\0")[0] == name.encode():
                data = body[offset + sum(sizes) :]
                if version in (1, 2, 3) and len(data) >= 16 * count:
                    return sum(struct.unpack_from("<I", data, 16 * i)[0] for i in range(count))
        raise ValueError(f"{self.label}: attribute {name!r} is not stored as h5py stores text")

    def _header_messages(self, address: int, kind: int) -> Iterator[bytes]:
        """Yield the bodies of one kind of messages of an object header of version 1."""
        version, _, _, _, length = struct.unpack("<BBHII", self._raw(address, 12))
        blocks = [(address + 16, length)] if version == 1 else []
        for start, size in blocks:  # continuations are appended on the way
            block = self._raw(start, size)
            position = 0
            while position + 8 <= len(block):
                found, extent = struct.unpack_from("<HH", block, position)
                body = block[position + 8 : position + 8 + extent]
                position += 8 + extent
                if found == 0x10 and len(body) >= 16 and len(blocks) < 1000:
                    blocks.append(struct.unpack_from("<QQ", body))
                elif found == kind and len(body) >= 9:
                    yield body

    def _raw(self, start: int, size: int) -> bytes:
        if start + size > self.size:
            raise ValueError(f"{self.label}: damaged HDF5 file: a header ends after the file")
        self._source.seek(start)
        return self._source.read(size)

    def names(self, group: Any, name: str) -> list[str]:
        """Return a list of strings that Keras stored as attribute `name`.

        Lists above 64 kB are split over attributes `name0`, `name1` and so on.
        """
        value = self.attribute(group, name)
        if value is not None:
            return [str(item) for item in value]
        result: list[str] = []
        chunk = 0
        while (part := self.attribute(group, f"{name}{chunk}")) is not None:
            result += [str(item) for item in part]
            chunk += 1
        return result

    def _walk(self, parent: Any, path: str) -> Any | None:
        node = parent
        for part in path.split("/"):
            if part in ("", ".", ".."):
                raise ValueError(f"{self.label}: expected a plain path, got {path!r}")
            if not isinstance(node, self._h5py.Group):
                raise ValueError(f"{self.label}: expected a group on the way to {path!r}")
            if not self._guard(lambda node=node, part=part: part in node):  # type: ignore[misc]
                return None
            node = self._child(node, part)
        return node

    def _child(self, group: Any, name: str) -> Any:
        link = self._guard(lambda: group.get(name, getlink=True))
        if not isinstance(link, self._h5py.HardLink):
            raise ValueError(
                f"{self.label}: refusing the {type(link).__name__} {name!r} in {group.name!r}; "
                "only data inside the file is read"
            )
        node = self._guard(lambda: group[name])
        if not isinstance(node, (self._h5py.Group, self._h5py.Dataset)):
            raise ValueError(f"{self.label}: {name!r} is neither a group nor a dataset")
        return node

    def _check_dataset(self, dataset: Any, subject: str) -> None:
        if dataset.external:
            raise ValueError(f"{subject} is stored in another file; refusing to open it")
        if dataset.is_virtual:
            raise ValueError(f"{subject} is a virtual dataset; refusing to open what it maps")
        plist = dataset.id.get_create_plist()
        filters = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
        if filters - _HDF5_FILTERS:
            raise ValueError(
                f"{subject} uses HDF5 filters {sorted(filters)}; only deflate, "
                "shuffle and fletcher32 are read"
            )
        bfloat16 = (
            dataset.dtype == np.dtype("V2") and self.attribute(dataset, "dtype") == "bfloat16"
        )
        if dataset.dtype.kind not in "fiu" and not bfloat16:
            raise ValueError(f"{subject}: expected numbers, got dtype {dataset.dtype}")
        if dataset.shape is None:
            raise ValueError(f"{subject}: expected numbers, got an empty dataspace")
        item = dataset.dtype.itemsize
        declared = math.prod(dataset.shape) * item
        chunk = math.prod(dataset.chunks) * item if dataset.chunks else 0
        stored = dataset.id.get_storage_size()
        if (
            stored > self._stored_left
            or max(declared, chunk) > self._declared_left
            or (declared and not stored)
        ):
            raise ValueError(
                f"{subject} declares shape {dataset.shape} ({declared} bytes) but stores {stored} "
                f"bytes in a file of {self.size}; refusing a truncated file or a shape bomb"
            )
        self._stored_left -= stored
        self._declared_left -= max(declared, chunk)

    def _guard(self, read: Callable[[], Any]) -> Any:
        """Run one h5py call; what it raises on damaged files becomes a `ValueError`."""
        try:
            return read()
        except _DAMAGE as error:
            raise ValueError(f"{self.label}: damaged HDF5 file: {error}") from error


def _decoded(value: Any, subject: str) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{subject}: expected UTF-8 text, got {error}") from error
    if isinstance(value, np.ndarray):
        return [_decoded(item, subject) for item in value.tolist()]
    return value


def write_hdf5(file: IO[bytes], write: Callable[[Any], None], subject: object) -> None:
    """Let `write` fill a new HDF5 file that is stored in the binary file object `file`."""
    h5py = require_h5py(subject)
    with h5py.File(file, "w") as root:
        write(root)


def require_keys(
    config: Mapping[str, Any], required: set[str], optional: set[str], subject: str
) -> None:
    """Raise a `ValueError` unless `config` has all required keys and no unknown one."""
    missing = sorted(required - config.keys())
    unknown = sorted(config.keys() - required - optional)
    if missing:
        raise ValueError(f"{subject}: expected the keys {sorted(required)}, missing {missing}")
    if unknown:
        raise ValueError(
            f"{subject}: unknown keys {unknown}, expected {sorted(required | optional)}"
        )
