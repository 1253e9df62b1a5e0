"""Where things lie. Everything that is written goes below one folder, so that `rm -r` of it undoes all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import VMError

# sun_path holds 108 bytes with its NUL; the longest socket name below the run folder is "control.sock".
_SOCKET_ROOM = 107 - len("/control.sock")


def cache_root() -> Path:
    """`$KPLUG_CACHE`, else `$XDG_CACHE_HOME/kplug`, else `~/.cache/kplug`."""
    own = os.environ.get("KPLUG_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser().absolute() if base else Path.home() / ".cache") / "kplug"


def kernel_dir(name: str) -> Path:
    """The folder that holds the files of the kernel `name` once it has been fetched."""
    return cache_root() / "kernels" / name


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`; other processes that want it wait. It goes away with the process."""
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / name).open("w")
    except OSError as error:
        raise VMError(f"the cache {root} can't be written: {error.strerror}") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_run_dir() -> Path:
    """A new folder for one machine's sockets and logs.

    It lies in the cache, but a unix socket's path must fit in 108 bytes: with a cache deep down in the tree the
    system's temporary folder has to do. The caller removes it.
    """
    root = cache_root() / "run"
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep_run_dirs(root)
        path = Path(tempfile.mkdtemp(prefix="vm-", dir=root))
        if len(os.fsencode(path)) <= _SOCKET_ROOM:
            return path
        path.rmdir()
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="kplug-vm-"))


def sweep_run_dirs(root: Path) -> None:
    """Remove the folders of machines whose owner was killed before it could clean up. QEMU has died with it."""
    for path in root.glob("vm-*"):
        try:
            owner = int((path / "owner").read_text())
            os.kill(owner, 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):
            continue  # being made right now, or another user's


def remove_tree(path: Path) -> None:
    """`rm -rf`: also fine when there is nothing."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
