"""Records of bytes in one append-only file: each begins with a mark, its kind, its length and a checksum, so that one that
was torn by a crash, or spoilt on the disk, costs only itself: reading goes on at the next mark."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple
from zlib import crc32

MARK = b"\x93INS"
_HEAD = struct.Struct("<4scII")  # mark, kind, length and checksum of what follows


class Record(NamedTuple):
    """kind: one letter; body: its bytes; end: where the next one begins."""

    kind: str
    body: memoryview
    end: int


def pack(kind: str, *parts: bytes) -> bytes:
    """One record."""
    body = b"".join(parts)
    return _HEAD.pack(MARK, kind.encode(), len(body), crc32(body)) + body


def records(data: bytes | mmap) -> Iterator[Record]:
    """The whole records, in order; what is torn is passed over, and at the end it may still be being written."""
    view, start = memoryview(data), data.find(MARK)
    while start >= 0:
        record = _at(view, start)
        if record is not None:
            yield record
        start = data.find(MARK, start + 1 if record is None else record.end)


def _at(view: memoryview, start: int) -> Record | None:
    if start + _HEAD.size > len(view):
        return None
    _, kind, length, check = _HEAD.unpack_from(view, start)
    begin = start + _HEAD.size
    body = view[begin : begin + length]
    whole = len(body) == length and crc32(body) == check
    return Record(kind.decode("latin-1"), body, begin + length) if whole else None
