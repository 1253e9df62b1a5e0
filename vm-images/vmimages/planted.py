"""A guest with known addresses planted in it, and its dump: one of every kind that kwhere tells apart.

The module `specimens/planted` plants and lists them, with a program whose own addresses are more of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import building, dumping, paths
from .dumping import DumpSet
from .errors import VMError
from .fetching import KernelFiles, fetch
from .machine import VM, boot

SPECIMENS = Path(__file__).resolve().parent.parent / "specimens"
# Room for what is planted; of 256 MiB the module would find too little.
_MEMORY = 512
_LINE = re.compile(r"(?:PLANT|USER)\|(\w+)\|(?:0x)?([0-9a-f]+)\|(.*)")
_SECONDS = 600.0


class Specimen(NamedTuple):
    """An address that was planted, and what is there in the words of who planted it."""

    key: str
    address: int
    truth: str


class Planted(NamedTuple):
    """A guest with the specimens: what the module and the program said of them."""

    vm: VM
    said: str
    user_said: str

    @property
    def specimens(self) -> list[Specimen]:
        return listed(self.said)

    @property
    def user_specimens(self) -> list[Specimen]:
        return _user_listed(self.user_said)

    @property
    def pid(self) -> int:
        """The user program's."""
        return _pid(self.user_said)


def planted_dump(
    name: str,
    *,
    append: Sequence[str] = (),
    la57: bool = False,
    pti: bool = False,
    refresh: bool = False,
    quiet: bool = False,
) -> DumpSet:
    """An ELF dump of the kernel `name` with all specimens, out of the cache or made in one boot."""
    files = fetch(name, quiet=quiet)
    label = "-".join((name, "planted", *(["la57"] if la57 else []), *(["pti"] if pti else []), *append))
    place = paths.cache_root() / "dumps" / label
    module = building.module(files, SPECIMENS / "planted", quiet)
    program = building.program(files.arch, SPECIMENS / "planted_user.c")
    # A dump of other specimens than these is made again.
    built_from = f"{module.parent.name} {program.parent.name}"
    options = {"append": tuple(append), "la57": la57, "pti": pti}
    return dumping.kept(
        files, place, built_from, "dumps-lock", lambda folder: _make(files, folder, options, quiet), refresh
    )


def specimens(dump: DumpSet) -> list[Specimen]:
    """What the module planted."""
    return listed(dump.truth.text("planted"))


def user_specimens(dump: DumpSet) -> list[Specimen]:
    """The addresses of the user program."""
    return _user_listed(dump.truth.text("planted-user"))


def user_pid(dump: DumpSet) -> int:
    """The process of the user program."""
    return _pid(dump.truth.text("planted-user"))


def listed(text: str) -> list[Specimen]:
    """The specimens that a log of the guest lists."""
    return [Specimen(key, int(number, 16), truth.strip()) for key, number, truth in _LINE.findall(text)]


def _user_listed(text: str) -> list[Specimen]:
    return [each._replace(key=f"user_{each.key}") for each in listed(text) if each.key != "pid"]


def _pid(text: str) -> int:
    found = re.search(r"\|pid\|(\d+)\|", text)
    if found is None:
        raise VMError("the program in the guest has not said its PID")
    return int(found[1])


@contextlib.contextmanager
def planted_guest(name: str, *, memory: int = _MEMORY, quiet: bool = False, **options: Any) -> Iterator[Planted]:
    """The kernel `name`, booted as `boot` does with those options, with all specimens in it."""
    files = fetch(name, quiet=quiet)
    module = building.module(files, SPECIMENS / "planted", quiet)
    program = building.program(files.arch, SPECIMENS / "planted_user.c")
    inside = (("planted/planted.ko", module), ("planted/planted_user", program))
    with boot(name, memory=memory, files=inside, quiet=quiet, **options) as vm:
        user = _start_program(vm)
        anonymous = next(each.address for each in listed(user) if each.key == "anon")
        said = vm.run(f"insmod /planted/planted.ko uva={anonymous:#x} && echo planted", timeout=_SECONDS)
        if "planted" not in said:
            raise VMError(f"the module cannot be loaded: {said.strip()}")
        vm.run("echo 1 >/sys/module/planted/parameters/reuse", timeout=_SECONDS)
        # Programs take page tables, some of them of the image's freed pages.
        vm.run("for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo 2 >/sys/module/planted/parameters/reuse")
        yield Planted(vm, vm.run("dmesg | grep 'PLANT|'"), user)


def _make(files: KernelFiles, folder: Path, options: dict[str, Any], quiet: bool) -> None:
    with planted_guest(files.name, quiet=quiet, **options) as guest:
        guest.vm.truth(folder / "truth")
        (folder / "truth" / "planted").write_text(guest.said)
        (folder / "truth" / "planted-user").write_text(guest.user_said)
        guest.vm.stop()
        (folder / "truth" / "registers").write_text(guest.vm.monitor("info registers -a"))
        dumping.dump(guest.vm, folder / "elf", "elf", quiet=quiet)
    dumping.stamp(folder, files, ["elf"], complete=True)


def _start_program(vm: VM) -> str:
    """Start the user program; what it says of itself."""
    vm.run("dd if=/dev/zero of=/planted/data bs=4096 count=8")
    vm.run("(setsid /planted/planted_user /planted/data >/planted/user 2>&1 </dev/null &)")
    vm.run("until grep -q pid /planted/user; do sleep 0.1; done")
    return vm.run("cat /planted/user")
