"""Dumps out of the cache of vm-images, open: drgn's view of one, kplug's, and what its guest said of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import drgn
from drgn.helpers.linux.mm import follow_phys

from kplug.model import Annotation
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Opened, Request
from kplug.runtime.session import kernel_of, open_session, session_of

if TYPE_CHECKING:
    from vmimages import DumpSet

    from kplug.runtime.kernel.kernel import Kernel
    from kplug.runtime.modules.struct_module import Module
    from kplug.session import Session

_D = TypeVar("_D", bound="Dumped")


def open_files(core: Path, vmlinux: Path | None = None) -> Opened:
    """A dump that is not of the cache."""
    return open_kernel(Request(str(core), symbols=(str(vmlinux),) if vmlinux is not None else ()))


def request_for(dumps: DumpSet, form: str = "elf", *, vmlinux: bool = True, modules: bool = False) -> Request:
    """The dump of that format, with the kernel's vmlinux, and the modules' debug files if they are wanted."""
    return Request(
        str(dumps.paths[form]),
        symbols=(str(dumps.files.vmlinux),) if vmlinux else (),
        module_directories=(str(dumps.files.debug_modules),) if modules else (),
    )


def open_dump(dumps: DumpSet, form: str = "elf", **given: bool) -> Opened:
    """What was opened of a `request_for`. Only of the format "elf" (physical addresses) can `patched` change all
    aliases of what it changes.
    """
    return open_kernel(request_for(dumps, form, **given))


def kernel_in(dumps: DumpSet, form: str = "elf", **given: bool) -> Kernel:
    return kernel_of(open_dump(dumps, form, **given))


def session_in(dumps: DumpSet, form: str = "elf", **given: bool) -> Session:
    return open_session(request_for(dumps, form, **given))


def module_of(kernel: Kernel, name: str) -> Module:
    """A module that is loaded there."""
    module = modules_of(kernel).named(name)
    assert module is not None
    return module


@dataclass
class Dumped:
    """A dump, open. `options` are those of the machine; `with_modules` says whether modules' debug files were given."""

    dumps: DumpSet
    prog: drgn.Program
    session: Session
    options: Mapping[str, Any]
    with_modules: bool

    @classmethod
    def open(
        cls: type[_D],
        name: str,
        *also: str,
        vmlinux: bool = True,
        modules: bool = False,
        **options: Any,
    ) -> _D:
        """The ELF dump of the kernel `name` on a machine with those options. `also` are formats to be made with it."""
        from vmimages import dumps

        made = dumps(name, ("elf", *also), quiet=True, **options)
        opened = open_dump(made, vmlinux=vmlinux, modules=modules)
        return cls(made, opened.prog, session_of(opened), options, modules)

    @property
    def kernel(self) -> Kernel:
        kernel: Kernel = self.session.target.kernel  # type: ignore[union-attr]
        return kernel

    def where(self, address: int) -> Annotation:
        return self.session.resolver.where(address)

    def symbol(self, name: str) -> int:
        """The guest's own word for it."""
        return self.dumps.truth.address(name)

    def physical(self, address: int) -> int:
        """drgn's walk of the kernel's page tables. FaultError where nothing is mapped."""
        value: int = follow_phys(self.prog["init_mm"].address_of_(), address).value_()
        return value
