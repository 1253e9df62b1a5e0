"""The kernel's own scripts, out of the linux-source package of a kernel's version: outside oracles.

No smaller package has them. Only the script is kept, in the cache of vm-images.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

from vmimages import manifest
from vmimages.apt import PrivateApt
from vmimages.paths import cache_root, locked
from vmimages.resolve import series_of

from support.oracle import kernels


def script(name: str, file: str) -> Path:
    """The file of that name in scripts/ of the kernel `name`, fetched if the cache doesn't have it: of its very version
    if that is still on the mirror, else of the newest of its series."""
    info = json.loads((kernels.root(name) / "info.json").read_text())
    series = series_of(info["release"])
    assert series is not None
    place = cache_root() / "scripts" / f"{file}-{info['version']}"
    with locked("lock"):  # apt's folders are shared with the fetching of kernels
        if not place.exists():
            _fetch(manifest.find(name), f"linux-source-{series[0]}", info["version"], file, place)
    return place


def _fetch(row: manifest.Kernel, package_name: str, version: str, file: str, place: Path) -> None:
    for source in row.sources:
        apt = PrivateApt(source.suites, row.arch)
        apt.update(lambda _: None)
        found = apt.show(package_name)
        if found:
            break
    else:
        raise AssertionError(f"{package_name} is in no suite of {row.name}")
    package = next((each for each in found if each.version == version), found[0])
    deb = apt.download(package, lambda _: None)
    text = _from_sources(deb, file)
    apt.forget([deb])
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.write_bytes(text)
    temporary.chmod(0o755)
    temporary.rename(place)


def _from_sources(deb: Path, name: str) -> bytes:
    """The script's text, out of the tar file of sources that is in the package."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as outer:
            for member in outer:
                inner = outer.extractfile(member) if ".tar" in member.name else None
                if inner is None:
                    continue
                with tarfile.open(fileobj=inner, mode="r|*") as sources:
                    for each in sources:
                        if each.name.endswith(f"/scripts/{name}"):
                            file = sources.extractfile(each)
                            assert file is not None
                            unpacking.kill()
                            return file.read()
    raise AssertionError(f"{deb} has no scripts/{name}")
