"""The private apt, with the host's own tools, against a repository on loopback."""

from __future__ import annotations

import email.utils
import hashlib
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmimages.apt import PrivateApt, complaint
from vmimages.errors import VMError

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
CONTENT = bytes(range(256)) * 4000


class Repository:
    """A flat repository with one package, on a server that can go on in the middle of a file as real mirrors do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = self.root / os.path.basename(request.path)
        wanted = request.headers.get("Range")
        self.asked.append((path.name, wanted))
        if not path.exists():
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data, start = path.read_bytes(), 0
        modified = email.utils.formatdate(path.stat().st_mtime, usegmt=True)
        if wanted is not None and request.headers.get("If-Range") == modified:
            start = int(wanted.partition("=")[2].rstrip("-"))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            request.send_response(200)
        request.send_header("Last-Modified", modified)
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        request.wfile.write(data[start:])

    def index(self, content: bytes) -> None:
        (self.root / "Packages").write_text(
            "Package: tool\nVersion: 1:2-3\nArchitecture: amd64\nMaintainer: t <t@t>\nFilename: ./tool.deb\n"
            f"Size: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\nDescription: t\n\n"
        )


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "tool.deb").write_bytes(CONTENT)
    os.utime(root / "tool.deb", (1_700_000_000, 1_700_000_000))
    found = Repository(root)
    found.index(CONTENT)
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def apt(cache: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> PrivateApt:
    """The repository isn't signed, so this apt is told to trust it; no other part is changed."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KPLUG_MIRROR", repository.url)
    private = PrivateApt(("x",), "amd64")
    write_config = private._write_config

    def trusting() -> None:
        write_config()
        (private.root / "sources.list").write_text(f"deb [trusted=yes] {repository.url} ./\n")
        with (private.root / "apt.conf").open("a") as file:
            file.write('Acquire::http::Proxy "DIRECT";\nAcquire::Retries "0";\n')

    monkeypatch.setattr(private, "_write_config", trusting)
    return private


def test_download_and_use_again(apt: PrivateApt, repository: Repository) -> None:
    notes: list[str] = []
    apt.update(notes.append)
    assert notes == []
    (package,) = apt.show("tool", "no-such-package")
    assert (package.name, package.version, package.size) == ("tool", "1:2-3", len(CONTENT))
    assert apt.names("^to") == ["tool"]
    path = apt.download(package, lambda fraction: None)
    assert path.read_bytes() == CONTENT
    count = len(repository.asked)
    assert apt.download(package, lambda fraction: None) == path
    assert len(repository.asked) == count
    apt.forget([path])
    assert not path.exists()


def test_a_part_is_completed(apt: PrivateApt, repository: Repository) -> None:
    apt.update(lambda text: None)
    (package,) = apt.show("tool")
    path = apt.archives / "tool_1%3a2-3_amd64.deb"
    path.write_bytes(CONTENT[:300_000])
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert apt.download(package, lambda fraction: None).read_bytes() == CONTENT
    assert repository.asked[-1] == ("tool.deb", "bytes=300000-")


def test_a_damaged_file_is_fetched_again(apt: PrivateApt) -> None:
    apt.update(lambda text: None)
    (package,) = apt.show("tool")
    (apt.archives / "tool_1%3a2-3_amd64.deb").write_bytes(CONTENT[:-1] + b"!")
    assert apt.download(package, lambda fraction: None).read_bytes() == CONTENT


def test_the_server_sends_something_else(apt: PrivateApt, repository: Repository) -> None:
    (repository.root / "tool.deb").write_bytes(CONTENT[:-1] + b"!")
    apt.update(lambda text: None)
    (package,) = apt.show("tool")
    with pytest.raises(VMError, match="tool"):
        apt.download(package, lambda fraction: None)
    assert not (apt.archives / "tool_1%3a2-3_amd64.deb").exists()


def test_gone_from_the_mirror(apt: PrivateApt, repository: Repository) -> None:
    (repository.root / "tool.deb").unlink()
    apt.update(lambda text: None)
    (package,) = apt.show("tool")
    with pytest.raises(VMError, match="404"):
        apt.download(package, lambda fraction: None)


def test_offline(apt: PrivateApt, repository: Repository) -> None:
    (repository.root / "Packages").unlink()
    with pytest.raises(VMError, match="package lists of x"):
        apt.update(lambda text: None)
    repository.index(CONTENT)
    apt.update(lambda text: None)
    (repository.root / "Packages").unlink()
    notes: list[str] = []
    apt._updated = False
    apt.update(notes.append)
    assert "older" in notes[0]
    assert apt.show("tool")


def test_the_machines_hooks_are_left_out(apt: PrivateApt) -> None:
    apt.update(lambda text: None)
    text = (apt.root / "apt.conf").read_text()
    assert "Post-Invoke" not in text
    assert (apt.root / "apt.conf").stat().st_mode & 0o077 == 0


def test_complaint() -> None:
    assert complaint("W: less\nE: more\n") == "more"
    assert complaint("noise\n\nlast\n") == "last"
    assert complaint("") != ""
