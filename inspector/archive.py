"""Trees of tensors and plain values, on disk and back: one safetensors file, written whole or not at all, no pickle.

The tree's shape travels as JSON in the file's header, so reading one never runs code; classes of dataclasses come
back as ``Struct``. Tensors are memory-mapped: nothing is read until it is asked for.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.tensors import Inputs, Opaque, Struct, dtype_text, is_namedtuple, is_record, parts

FORMAT = "inspector/1"
MOST_HEADER = 2**26  # bytes of a file's header that are looked at
SMALL = 8 * 2**20  # bytes: checking all of a file up to this size takes no time that anyone would notice


class ArchiveError(ValueError):
    """The file is not one that this library wrote whole: truncated, tampered with, or of another kind."""


def save(path: str | Path, tree: Any, *, kind: str) -> Path:
    """Write ``tree`` (tensors, arrays, numbers, text, None, nested) to one file, atomically.

    ``kind`` names what the tree is; ``load`` checks it. Raises TypeError for a value that is none of these, and
    FileExistsError rather than replace a file that is no record of this library's.
    """
    from safetensors.torch import save_file

    _may_be_written(Path(path))
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": FORMAT, "kind": kind, "tree": _encode(tree, tensors, {})})
    sums = {name: zlib.crc32(_raw(tensor)) for name, tensor in tensors.items()}
    header = {"inspector": text, "sums": json.dumps(sums), "sum": _sum(text, sums, tensors)}
    return _whole(Path(path), lambda temporary: save_file(tensors, temporary, metadata=header))


def writable(value: Any) -> Any:
    """The value itself where it can be saved, else an Opaque with the name of its class."""
    try:
        _encode(value, {}, {})
    except TypeError:
        return Opaque(type(value).__name__)
    return value


def load(path: str | Path, *, kind: str) -> Any:
    """Read a tree back; tensors map the file, and only those of a small file are read to check their sums.

    Raises FileNotFoundError, or ArchiveError that says what is wrong.
    """
    from safetensors import safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file; give the path that .save() was given")
    try:
        with safe_open(str(path), framework="pt") as file:
            notes = file.metadata() or {}
            header = json.loads(notes.get("inspector", "null"))
            _check(header, kind, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            _verify(notes, tensors, thorough=Path(path).stat().st_size <= SMALL)
            return _decode(header["tree"], tensors.__getitem__)
    except (OSError, MemoryError, ArchiveError):
        raise
    except Exception as error:  # whatever a changed file makes a reader stumble over
        raise ArchiveError(f"{path} is truncated or was changed ({error}); save the {kind} again") from error


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return _whole(Path(path), lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def _verify(notes: Mapping[str, str], tensors: dict[str, Tensor], *, thorough: bool) -> None:
    sums = json.loads(notes["sums"])
    if notes["sum"] != _sum(notes["inspector"], sums, tensors):
        raise ValueError("its header does not have the checksum that was written")
    changed = [name for name in tensors if thorough and zlib.crc32(_raw(tensors[name])) != sums[name]]
    if changed:
        raise ValueError(f"{len(changed)} of its {len(tensors)} tensors do not have the checksum that was written")


def _sum(text: str, sums: dict[str, int], tensors: dict[str, Tensor]) -> str:
    """A checksum over everything but the tensors' elements."""
    shapes = [[name, str(tensors[name].dtype), list(tensors[name].shape), sums[name]] for name in sorted(tensors)]
    return f"{zlib.crc32(json.dumps([text, shapes]).encode()):08x}"


def _raw(tensor: Tensor) -> Any:
    """The bytes of a dense tensor on the CPU, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _check(header: Any, kind: str, path: str | Path) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ArchiveError(f"{path} is a safetensors file but not one of inspector's; it has no {FORMAT!r} header")
    if header["kind"] != kind:
        raise ArchiveError(f"{path} holds a {header['kind']}, not a {kind}; use {header['kind']}.load")


def _whole(path: Path, write: Any) -> Path:
    """Write beside the target, flush to the disk, then rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp gives 0600, which nobody asked for
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _may_be_written(path: Path) -> None:
    """A record may be saved anew, as when a notebook cell runs twice; anything else is not ours to replace."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it, such as {path / 'record.safetensors'}")
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        ours = b'"inspector"' in file.read(min(int.from_bytes(file.read(8), "little"), MOST_HEADER))
    if not ours:
        raise FileExistsError(f"{path} exists and is no record of Inspector's; choose another name or remove it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _encode(value: Any, tensors: dict[str, Tensor], seen: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return _encode_tensor(value, tensors, seen)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {"$array": _encode_tensor(torch.from_numpy(np.ascontiguousarray(value)), tensors, {})}
    if isinstance(value, np.generic):
        return _encode(value.item(), tensors, seen)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Opaque):
        return {"$opaque": value.name}
    if isinstance(value, (int, float)):
        return value if _is_json_number(value) else {"$float": str(value)}
    return _encode_nested(value, tensors, seen)


def _is_json_number(value: float) -> bool:
    return isinstance(value, int) or (value == value and abs(value) != float("inf"))


def _encode_nested(value: Any, tensors: dict[str, Tensor], seen: dict[int, Any]) -> Any:
    if is_namedtuple(value) or is_record(value):
        return {"$struct": [[k, _encode(v, tensors, seen)] for k, v in parts(value)], "class": type(value).__name__}
    if isinstance(value, Mapping):
        return {
            "$inputs" if isinstance(value, Inputs) else "$map": [
                [_encode(k, tensors, seen), _encode(v, tensors, seen)] for k, v in value.items()
            ]
        }
    if isinstance(value, (tuple, list, set, frozenset, range)):
        name = "$list" if isinstance(value, list) else "$tuple"
        return {name: [_encode(item, tensors, seen) for item in value]}
    raise TypeError(
        f"cannot save a {type(value).__name__}: only tensors, arrays, numbers, text, None and nestings of them are "
        "written, so that reading never runs code; convert it first"
    )


def _encode_tensor(tensor: Tensor, tensors: dict[str, Tensor], seen: dict[int, Any]) -> Any:
    if id(tensor) in seen:
        return seen[id(tensor)]
    seen[id(tensor)] = note = _note(tensor.detach().resolve_conj().resolve_neg(), tensors)
    return note


def _note(tensor: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if tensor.is_meta:
        return {"$meta": [list(tensor.shape), dtype_text(tensor)]}
    if tensor.is_quantized:
        raise TypeError(f"cannot save a quantized tensor ({dtype_text(tensor)}): dequantize it first")
    if tensor.is_nested:
        mark = "$jagged" if tensor.layout == torch.jagged else "$nested"
        return {mark: [_encode_tensor(item, tensors, {}) for item in tensor.unbind()]}
    if tensor.layout != torch.strided:
        return {"$sparse": _sparse_pieces(tensor, tensors)}
    name = f"t{len(tensors)}"
    tensors[name] = _dense(torch.view_as_real(tensor) if tensor.is_complex() else tensor)
    return {"$complex" if tensor.is_complex() else "$tensor": name}


def _dense(tensor: Tensor) -> Tensor:
    """Its own contiguous memory on the CPU, because safetensors refuses tensors that share a storage."""
    return tensor.to("cpu").clone(memory_format=torch.contiguous_format)


def _sparse_pieces(tensor: Tensor, tensors: dict[str, Tensor]) -> Any:
    sparse = torch.Tensor.to_sparse(tensor).coalesce()
    return [_encode_tensor(t, tensors, {}) for t in (sparse.indices(), sparse.values())] + [list(tensor.shape)]


def _decode(node: Any, get: Any) -> Any:
    if not isinstance(node, dict):
        return node
    mark, content = next(iter(node.items()))
    return _DECODERS[mark](content, get)


def _sparse(content: Any, get: Any) -> Tensor:
    indices, values, shape = _decode(content[0], get), _decode(content[1], get), content[2]
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()


def _nested(items: list[Tensor], layout: torch.layout) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch: nested tensors are a prototype
        return torch.nested.nested_tensor(items, layout=layout)


_DECODERS: dict[str, Any] = {
    "$tensor": lambda content, get: get(content),
    "$complex": lambda content, get: torch.view_as_complex(get(content)),
    "$array": lambda content, get: _decode(content, get).numpy(),
    "$nested": lambda content, get: _nested([_decode(item, get) for item in content], torch.strided),
    "$jagged": lambda content, get: _nested([_decode(item, get) for item in content], torch.jagged),
    "$meta": lambda content, get: torch.empty(content[0], dtype=getattr(torch, content[1]), device="meta"),
    "$sparse": _sparse,
    "$opaque": lambda content, get: Opaque(content),
    "$float": lambda content, get: float(content),
    "$struct": lambda content, get: Struct({key: _decode(item, get) for key, item in content}),
    "$map": lambda content, get: {_decode(key, get): _decode(item, get) for key, item in content},
    "$inputs": lambda content, get: Inputs({key: _decode(item, get) for key, item in content}),
    "$list": lambda content, get: [_decode(item, get) for item in content],
    "$tuple": lambda content, get: tuple(_decode(item, get) for item in content),
}
