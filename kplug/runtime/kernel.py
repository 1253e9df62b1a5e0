"""A running or crashed kernel, through a drgn Program: what the locators of `kplug.runtime` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import drgn

from kplug.errors import TargetError
from kplug.image.images import Images
from kplug.image.placed import PlacedImage
from kplug.memory import UnmappedError
from kplug.runtime.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from kplug.runtime.modules import Modules

T = TypeVar("T")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What drgn raises inside becomes a TargetError that says what could not be had: `what`, in the user's words."""
    try:
        yield
    except drgn.FaultError as error:
        raise TargetError(f"{what}: {fault_words(error)}") from None
    except (drgn.MissingDebugInfoError, drgn.ObjectAbsentError, LookupError, AttributeError) as error:
        # A type, variable or member that the debug information does not have.
        said = str(error.args[0] if error.args else error)
        raise TargetError(f"{what}: {said}") from None
    except (drgn.BadDataError, drgn.OutOfBoundsError, ValueError, TypeError, OverflowError) as error:
        raise TargetError(f"{what}: {error}") from None


def fault_words(error: drgn.FaultError) -> str:
    """drgn's reason and address on one line: `memory was excluded from the dump: 0xffff...`."""
    return " ".join(str(error).split())


class Kernel:
    """The Program, the vmlinux in its place where there is one, and what was read, as long as it holds.

    `image` is None without a vmlinux; then only what needs no symbols and types can be asked. `has_types` says whether
    drgn has the kernel's DWARF. `vmcoreinfo` is what the kernel told of itself, empty where nothing is known of it.
    """

    def __init__(
        self,
        prog: drgn.Program,
        image: PlacedImage | None,
        *,
        live: bool = False,
        vmcoreinfo: VmcoreInfo | None = None,
    ) -> None:
        self.prog = prog
        self.image = image
        self.vmcoreinfo = vmcoreinfo if vmcoreinfo is not None else VmcoreInfo("")
        self.images: Images = Images([image] if image is not None else [])
        self.live = live
        self._remembered: dict[object, Any] = {}
        self._generation = 0

    @property
    def machine(self) -> str:
        """The architecture as the core names it: x86_64, aarch64, ..."""
        platform = self.prog.platform
        name = platform.arch.name.lower() if platform is not None else ""
        return {"x86_64": "x86_64", "aarch64": "aarch64"}.get(name, name)

    @property
    def generation(self) -> int:
        """Changes whenever what was read may no longer hold."""
        return self._generation

    def moved(self) -> None:
        """Forget what was read: the kernel ran on since."""
        self._generation += 1
        self._remembered.clear()

    def remembered(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returns, made once as long as the kernel stands still. What it raises is not remembered."""
        try:
            value: T = self._remembered[key]
        except KeyError:
            value = self._remembered[key] = make()
        return value

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a kernel virtual address. UnmappedError where nothing is mapped, or the dump lacks the page."""
        try:
            return bytes(self.prog.read(address, size))
        except drgn.FaultError as error:
            raise UnmappedError(fault_words(error)) from None
        except (OverflowError, ValueError) as error:
            raise TargetError(f"memory at {address:#x} cannot be read: {error}") from None

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes at a physical address, errors as `read`."""
        try:
            return bytes(self.prog.read(address, size, True))
        except drgn.FaultError as error:
            raise UnmappedError(fault_words(error)) from None
        except (OverflowError, ValueError) as error:
            raise TargetError(f"physical memory at {address:#x} cannot be read: {error}") from None

    def symbol(self, name: str) -> int | None:
        """The runtime address of a symbol of the vmlinux; None if it has none of that name."""
        if self.image is None:
            return None
        symbols = self.image.image.symbols.exact(name)
        return self.image.symbol_address(symbols[0]) if symbols else None

    @property
    def modules(self) -> Modules:
        """The loaded modules; their list is read at the first question about it."""
        from kplug.runtime.modules import Modules

        return self.remembered("modules", lambda: Modules(self))

    @property
    def has_types(self) -> bool:
        """Whether drgn knows the kernel's types."""
        return self.remembered("has_types", self._find_types)

    def _find_types(self) -> bool:
        try:
            self.prog.type("struct page")
        except LookupError:
            return False
        return True
