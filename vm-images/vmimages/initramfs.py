"""The guest's filesystem: busybox, the modules to load, and an init that serves commands to the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import manifest, modules
from .cpio import CpioWriter
from .errors import VMError
from .fetching import KernelFiles
from .paths import cache_root

_GUEST = Path(__file__).resolve().parent / "guest"


def module_order(files: KernelFiles, wanted: Sequence[str]) -> list[Path]:
    """The files of the wanted modules and of all that they need, in the order to load them.

    What isn't there is left out: it is built in in one kernel and a module in the next.
    """
    paths, needs = modules.parse_modules_dep((files.modules / "modules.dep").read_text())
    names = [name.replace("-", "_") for name in wanted]
    return [files.modules / paths[name] for name in modules.load_order(names, needs) if name in paths]


def build(
    files: KernelFiles,
    out: Path,
    extra: Sequence[str] = manifest.EXTRA_MODULES,
    more: Sequence[tuple[str, Path]] = (),
) -> Path:
    """Write the initramfs of a kernel to `out`; `extra` are modules to load besides those that booting needs, `more`
    are executable files: (place in the guest, the host's file).

    Not compressed: QEMU hands it over at once, and the guest, slow as it is, needn't unpack it.
    """
    order = []
    try:
        with out.open("wb") as file, CpioWriter(file) as archive:
            archive.file("bin/busybox", files.busybox.read_bytes(), mode=0o755)
            # The kernel opens the console before init can mount anything.
            archive.device("dev/console", 5, 1)
            archive.device("dev/null", 1, 3, mode=0o666)
            archive.file("init", (_GUEST / "init").read_bytes(), mode=0o755)
            archive.file("bin/spin", (_GUEST / "spin").read_bytes(), mode=0o755)
            for name, path in more:
                archive.file(name, path.read_bytes(), mode=0o755)
            for path in module_order(files, (*manifest.BOOT_MODULES, *extra)):
                name = f"{modules.module_name(path.name)}.ko"
                archive.file(f"modules/{name}", modules.read_module(path))
                order.append(name)
            archive.file("modules/order", "".join(name + "\n" for name in order).encode())
    except OSError as error:
        raise VMError(f"the initramfs can't be written: {error.strerror}: {error.filename}") from None
    return out


def place(files: KernelFiles) -> Path:
    """Where in the cache a kernel's initramfs goes when somebody asks for one; machines build their own."""
    folder = cache_root() / "initramfs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{files.name}.cpio"
