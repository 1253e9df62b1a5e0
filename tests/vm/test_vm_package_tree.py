"""A package with those that it depends on."""

from __future__ import annotations

import pytest
from vmimages import VMError, package_tree
from vmimages.aptparse import Package


class FakeApt:
    """Packages that depend on one another."""

    suites = ("bookworm",)

    def __init__(self, needs: dict[str, tuple[str, ...]]) -> None:
        self._needs = needs

    def show(self, name: str) -> list[Package]:
        if name not in self._needs:
            return []
        depends = tuple((needed, None) for needed in self._needs[name])
        return [Package(name, version, depends, "", 1) for version in ("2", "1")]


def needed(needs: dict[str, tuple[str, ...]]) -> list[str]:
    found = package_tree._with_needed(FakeApt(needs), "kexec-tools", lambda name: name != "debconf")  # type: ignore[arg-type]
    return sorted(package.name for package in found)


def test_packages_are_taken_with_all_that_they_depend_on() -> None:
    needs = {"kexec-tools": ("libc6", "libx", "debconf"), "libx": ("libc6", "liby"), "liby": ("libx",), "libc6": ()}
    assert needed(needs) == ["kexec-tools", "libc6", "libx", "liby"]
    with pytest.raises(VMError, match=r"^libx isn't in bookworm$"):
        needed({"kexec-tools": ("libx",)})
