"""Modules for a guest, built against its kernel's header packages: what is said when these are nowhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from vmimages import building
from vmimages.errors import HeadersGone, VMError
from vmimages.progress import Progress


class EmptyApt:
    """A mirror that has newer kernels only."""

    def __init__(self, suites: tuple[str, ...], arch: str) -> None:
        self.suites = suites

    def update(self, note: object) -> None:
        pass

    def show(self, *names: str) -> list[object]:
        return []


def test_header_packages_of_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PrivateApt", EmptyApt)
    files = SimpleNamespace(name="amd64-6.1", arch="amd64", release="6.1.0-1-amd64")
    with pytest.raises(HeadersGone, match=r"^linux-headers-6.1.0-1-amd64 is gone .*fetch amd64-6.1 --refresh"):
        building._apt_with("linux-headers-6.1.0-1-amd64", files, Progress("a test", quiet=True))  # type: ignore[arg-type]


def test_the_compiler_of_another_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text('CONFIG_CC_VERSION_TEXT="gcc-of-nobody-12 (Debian 12.2.0)"\n')
    with pytest.raises(VMError, match=r"^of-nobody-gcc isn't installed: \.ci/setup build does that$"):
        building._compiler(tmp_path, "of-nobody-")
