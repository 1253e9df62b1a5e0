"""A running or crashed kernel, through a drgn Program: what the locators of `kplug.runtime` share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import drgn

from kplug.errors import TargetError
from kplug.image.images import Images
from kplug.image.placed import PlacedImage
from kplug.memory.reading import UnmappedError
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.progress import waiting
from kplug.runtime.kernel.platform import machine_of
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space

if TYPE_CHECKING:
    from kplug.runtime.modules.debug_files import DebugFiles
    from kplug.runtime.modules.module_list import Modules
    from kplug.runtime.types.finders import WithoutDwarf

T = TypeVar("T")

# What drgn 0.3 and libkdumpfile 0.5 say of memory, and what it means. makedumpfile marks a page that it leaves out as
# one that does not exist.
_FAULTS = (
    (re.compile("Excluded page"), "the page is not in the dump: excluded when it was written, or no memory"),
    (re.compile("Wrong page size|Decompres+ion failed|text search failed"), "the dump is truncated or broken there"),
    (re.compile("not present|No way to translate"), "address is not mapped"),
    (re.compile("Out-of-bounds PFN|could not find physical memory segment"), "no memory at this physical address"),
    (re.compile("[Uu]nexpected EOF|[Ss]hort read"), "the dump is truncated before this memory"),
)


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
    except (
        drgn.BadDataError,
        drgn.OutOfBoundsError,
        ValueError,
        TypeError,
        OverflowError,
        NotImplementedError,
    ) as error:
        raise TargetError(f"{what}: {error}") from None
    except Exception as error:
        if not is_lost(error):
            raise
        raise TargetError(f"{what}: {lost_words(error)}") from None


def is_lost(error: Exception) -> bool:
    """Whether the target itself is gone: what the operating system says of a guest's process or of a file, and what
    drgn says as a bare Exception of a connection."""
    return isinstance(error, OSError) or type(error) is Exception


def lost_words(error: Exception) -> str:
    """Why the target cannot be asked any more, on one line."""
    if isinstance(error, (ProcessLookupError, BrokenPipeError, ConnectionError)):
        return "the guest has gone away"
    if isinstance(error, BlockingIOError):  # the time limit of the connection
        return "the guest does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or "the target cannot be asked"


def fault_words(error: drgn.FaultError) -> str:
    """Why memory could not be read, and the address that could not, on one line."""
    text = " ".join(str(error).split())
    return next((f"{words}: {error.address:#x}" for said, words in _FAULTS if said.search(text)), text)


def word_in(data: bytes, offset: int) -> int:
    """The 64-bit word at an offset in bytes of memory. Little-endian: no big-endian machine has tables here."""
    return int.from_bytes(data[offset : offset + 8], "little")


def _read_error(error: Exception, what: str) -> Exception:
    """What is raised where memory could not be read: `error` itself if it is none of memory."""
    if isinstance(error, drgn.FaultError):
        return UnmappedError(fault_words(error))
    if isinstance(error, (OverflowError, ValueError)):
        return TargetError(f"{what} cannot be read: {error}")
    if is_lost(error):
        return TargetError(f"{what} cannot be read: {lost_words(error)}")
    return error


class Kernel:
    """The Program, the vmlinux in its place where there is one, and what was read, as long as it holds.

    `image` is None where there is neither a vmlinux nor kallsyms; then only what needs no symbols and types can be
    asked. `has_types` says whether drgn has the kernel's types, from DWARF or BTF. `vmcoreinfo` is what the kernel told
    of itself, empty where nothing is known of it. `module_directories` are folders that the user says have the modules'
    debug files. `left_out` says of a physical address that it reads as zeros only because the dump has nothing there:
    it was excluded, or a page of zeros.
    """

    def __init__(
        self,
        prog: drgn.Program,
        image: PlacedImage | None,
        *,
        live: bool = False,
        vmcoreinfo: VmcoreInfo | None = None,
        module_directories: Sequence[str] = (),
        left_out: Callable[[int], bool] = lambda physical: False,
    ) -> None:
        self.prog = prog
        self.image = image
        self.vmcoreinfo = vmcoreinfo if vmcoreinfo is not None else VmcoreInfo("")
        self.live = live
        self.left_out = left_out
        self._remembered: dict[object, Any] = {}
        #: What tells drgn of symbols and types where it has no debug information; None where it has.
        self.without_dwarf: WithoutDwarf | None = None
        self._generation = 0
        self._addresses: dict[str, int | None] = {}  # of symbols: where the image is does not change
        self._module_directories = tuple(module_directories)

    @property
    def machine(self) -> str:
        """The architecture as the core names it: x86_64, aarch64, ..."""
        return machine_of(self.prog)

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
        except Exception as error:
            raise _read_error(error, f"memory at {address:#x}") from None

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes at a physical address, errors as `read`."""
        try:
            return bytes(self.prog.read(address, size, True))
        except Exception as error:
            raise _read_error(error, f"physical memory at {address:#x}") from None

    def read_word(self, address: int) -> int:
        """The 64-bit word at a kernel virtual address, errors as `read`."""
        return int.from_bytes(self.read(address, 8), "little")

    def symbol(self, name: str) -> int | None:
        """The runtime address of a symbol of the vmlinux; None if it has none of that name."""
        if self.image is None:
            return None
        if name not in self._addresses:
            symbols = self.image.image.symbols.exact(name)
            self._addresses[name] = self.image.symbol_address(symbols[0]) if symbols else None
        return self._addresses[name]

    @cached_property
    def images(self) -> Images:
        """The vmlinux and the loaded modules; a module's is made when an address in it is asked about."""
        from kplug.runtime.modules.images import LoadedImages

        return LoadedImages(self, self._module_directories)

    @cached_property
    def debug_files(self) -> DebugFiles:
        """What tells drgn of modules."""
        from kplug.runtime.modules.debug_files import DebugFiles

        return DebugFiles(self)

    @property
    def facts(self) -> AddressSpaceFacts:
        """What is known of its address space."""
        return self.remembered("facts", self._find_facts)

    def _find_facts(self) -> AddressSpaceFacts:
        from kplug.runtime.kernel.facts import kernel_facts  # which needs this module

        return kernel_facts(self)

    @property
    def space(self) -> AddressSpace | None:
        """Its address space; None where kplug has no table of the architecture."""
        return self.remembered("space", self._find_space)

    def _find_space(self) -> AddressSpace | None:
        return address_space(self.machine, self.facts)

    @property
    def modules(self) -> Modules:
        """The loaded modules; their list is read at the first question about it."""
        from kplug.runtime.modules.module_list import Modules

        return self.remembered("modules", lambda: Modules(self))

    @property
    def has_types(self) -> bool:
        """Whether drgn knows the kernel's types."""
        return self.remembered("has_types", self._find_types)

    def _find_types(self) -> bool:
        if self.without_dwarf is not None:
            return self.without_dwarf.types is not None
        try:
            # The first question about a type makes drgn index all of the DWARF.
            waiting("reading the kernel's debug information", lambda: self.prog.type("struct page"))
        except LookupError:
            return False
        return True

    @property
    def types_source(self) -> str:
        """Where the kernel's types are from, or why there are none, for the user."""
        if self.has_types:
            found = self.without_dwarf.types_source if self.without_dwarf is not None else None
            return found or "DWARF"
        why = self.without_dwarf.problem if self.without_dwarf is not None else None
        return f"none: {why or 'neither DWARF nor BTF is there'}"
