"""Modules for a guest, built against its kernel's header packages: what is said when these are nowhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from vmimages import building
from vmimages.errors import HeadersGone
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
