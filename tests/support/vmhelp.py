"""Small real artefacts for the tests: an ELF file with a build ID, a module, a Debian package, a server."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

BUILD_ID = bytes(range(20))


def note(owner: bytes, kind: int, data: bytes) -> bytes:
    name = owner + b"\0"
    return struct.pack("<III", len(name), len(data), kind) + name + bytes(-len(name) % 4) + data + bytes(-len(data) % 4)


def make_elf(sections: Mapping[str, bytes]) -> bytes:
    """A 64-bit ELF file with these sections and nothing else."""
    names = b"\0"
    body = b""
    rows = [(0,) * 10]
    for name, data in [*sections.items(), (".shstrtab", b"")]:
        at = len(names)
        names += name.encode() + b"\0"
        content = names if name == ".shstrtab" else data
        rows.append((at, 1, 0, 0, 64 + len(body), len(content), 0, 0, 1, 0))
        body += content
    table = b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64,
                       len(rows), len(rows) - 1)  # fmt: skip
    return head + body + table


def make_vmlinux(build_id: bytes = BUILD_ID) -> bytes:
    # Xen's notes come first in real ones, with a type 3 of their own.
    return make_elf({".notes": note(b"Xen", 3, b"\x01\x02\x03\x04") + note(b"GNU", 3, build_id)})


def make_module(depends: str = "") -> bytes:
    return make_elf({".modinfo": b"license=GPL\0depends=" + depends.encode() + b"\0name=x\0"})


def make_deb(
    path: Path, name: str, version: str, files: Mapping[str, bytes], links: Mapping[str, str] | None = None
) -> Path:
    """A Debian package."""
    root = path.parent / f"{path.name}.root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@t>\nDescription: t\n"
    (root / "DEBIAN/control").write_text(control)
    for file, data in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    for link, target in (links or {}).items():
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(target)
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, path], check=True, capture_output=True)
    return path


class UnixServer:
    """Serves one connection on a unix socket with `talk(connection)`, in a thread."""

    def __init__(self, path: Path, talk: Callable[[socket.socket], None]) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, args=(talk,), daemon=True)
        self._thread.start()

    def _serve(self, talk: Callable[[socket.socket], None]) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            talk(connection)

    def __enter__(self) -> UnixServer:
        return self

    def __exit__(self, *rest: object) -> None:
        self._listener.close()
        self._thread.join(5)
