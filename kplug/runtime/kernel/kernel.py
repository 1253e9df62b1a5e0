"""A running or crashed kernel, through a drgn Program, as shared by the locators of `kplug.runtime`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import drgn

from kplug.errors import TargetError
from kplug.image.placed import PlacedImage
from kplug.lifetimes import FOR_EVER, UNTIL_RESUMED, Memo, remembered
from kplug.memory.reading import FaultError, MissingPartError, TruncatedError
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.progress import waiting
from kplug.runtime.kernel.platform import machine_of, word_of

# What kplug makes drgn say of a page that a truncated dump has only a part of.
TRUNCATED_PAGE = "the dump is truncated in this page"
# And of a page in a file of a split dump that is not there.
MISSING_PART = "the page is in a part of the split dump that is missing"

_EXCLUDED = re.compile("Excluded page")
# Messages of drgn 0.3 and libkdumpfile 0.5 about memory, and their meaning. In a kdump file an excluded page cannot be
# distinguished from one that has no memory.
_FAULTS: tuple[tuple[re.Pattern[str], str, type[FaultError]], ...] = (
    (
        _EXCLUDED,
        "the page is not in the dump: excluded when it was written, or no memory",
        FaultError,
    ),
    # What describes the page in the file is all zeros: makedumpfile ended before it, since the disk was full.
    (re.compile(r"Wrong page size: 0\b"), "the dump is incomplete: this page was never written", TruncatedError),
    (
        re.compile("Wrong page size|Decompres+ion failed|text search failed"),
        "the dump is truncated or broken there",
        TruncatedError,
    ),
    (re.compile("not present|No way to translate"), "address is not mapped", FaultError),
    (
        re.compile("Out-of-bounds PFN|could not find physical memory segment"),
        "no memory at this physical address",
        FaultError,
    ),
    # Where drgn does not walk the architecture's page tables (riscv64), or was given no memory there.
    (re.compile("could not find memory segment"), "drgn has no way to translate this address", FaultError),
    (re.compile("[Uu]nexpected EOF|[Ss]hort read"), "the dump is truncated before this memory", TruncatedError),
    (re.compile(TRUNCATED_PAGE), TRUNCATED_PAGE, TruncatedError),
    (re.compile(MISSING_PART), MISSING_PART, MissingPartError),
)


def is_lost(error: Exception) -> bool:
    """Whether the target itself is gone: an error of the operating system for a guest's process or a file, or drgn's
    bare Exception for a connection."""
    return isinstance(error, OSError) or type(error) is Exception


def lost_words(error: Exception) -> str:
    """Why the target cannot be read any more, on one line."""
    if isinstance(error, (ProcessLookupError, BrokenPipeError, ConnectionError)):
        return "the guest has gone away"
    if isinstance(error, BlockingIOError):  # the time limit of the connection
        return "the guest does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or "the target cannot be read"


class Kernel:
    """The Program, the vmlinux in its place if there is one, and what was read, as long as it holds.

    `image` is None where there is neither a vmlinux nor kallsyms; then only what needs no symbols and types can be
    asked. `has_types` says whether drgn has the kernel's types, from DWARF or BTF. `vmcoreinfo` is what the kernel told
    of itself, empty where nothing is known of it. `module_directories` are folders that the user says have the modules'
    debug files. `is_zero_filled` says of a physical address that it reads as zeros only because the dump has nothing
    there: it was excluded, or a page of zeros; `is_missing` of an address, virtual or physical, that cannot be read,
    that it is in a part of a split dump that is not there. `has_dwarf` says whether drgn has debug information of the
    vmlinux. A debugger that holds the kernel gives its own `memo`. `word` is how this kernel has its words.
    """

    def __init__(
        self,
        prog: drgn.Program,
        image: PlacedImage | None,
        *,
        live: bool = False,
        vmcoreinfo: VmcoreInfo | None = None,
        module_directories: Sequence[str] = (),
        is_zero_filled: Callable[[int], bool] = lambda physical: False,
        is_missing: Callable[[Kernel, int], bool] = lambda kernel, address: False,
        has_dwarf: bool = True,
        memo: Memo | None = None,
    ) -> None:
        self.prog = prog
        self.image = image
        self.word = word_of(prog)
        self.vmcoreinfo = vmcoreinfo if vmcoreinfo is not None else VmcoreInfo("")
        self.live = live
        self.is_zero_filled = is_zero_filled
        self._is_missing = is_missing
        self.has_dwarf = has_dwarf
        self.module_directories = tuple(module_directories)
        self.memo = memo if memo is not None else Memo()

    @property
    def machine(self) -> str:
        """The architecture by the core's name: x86_64, aarch64, ..."""
        return machine_of(self.prog)

    def resumed(self) -> None:
        """Forget what was read: the kernel has run since."""
        self.memo.forget(UNTIL_RESUMED)

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a kernel virtual address. FaultError if nothing is mapped, or the dump lacks the page."""
        try:
            return bytes(self.prog.read(address, size))
        except Exception as error:
            raise self._read_error(error, f"memory at {address:#x}") from None

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes at a physical address; errors as for `read`."""
        try:
            return bytes(self.prog.read(address, size, True))
        except Exception as error:
            raise self._read_error(error, f"physical memory at {address:#x}") from None

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """drgn's errors inside become a TargetError that says what could not be read: `what`, in words for the user."""
        try:
            yield
        except drgn.FaultError as error:
            raise TargetError(f"{what}: {self.fault_words(error)}") from None
        except (drgn.MissingDebugInfoError, drgn.ObjectAbsentError, LookupError, AttributeError) as error:
            # A type, variable or member is not in the debug information.
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

    def fault_words(self, error: drgn.FaultError) -> str:
        """Why memory could not be read, and at which address, on one line."""
        return str(self._fault(error))

    def _fault(self, error: drgn.FaultError) -> FaultError:
        """What an error of drgn's about memory means."""
        text = " ".join(str(error).split())
        for said, words, kind in _FAULTS:
            if said.search(text):
                if said is _EXCLUDED and self._is_missing(self, error.address):
                    words, kind = MISSING_PART, MissingPartError
                return kind(f"{words}: {error.address:#x}")
        return FaultError(text)

    def _read_error(self, error: Exception, what: str) -> Exception:
        """The exception to raise if memory could not be read: `error` itself if it is about something else."""
        if isinstance(error, drgn.FaultError):
            return self._fault(error)
        if isinstance(error, (OverflowError, ValueError)):
            return TargetError(f"{what} cannot be read: {error}")
        if is_lost(error):
            return TargetError(f"{what} cannot be read: {lost_words(error)}")
        return error

    def read_word(self, address: int) -> int:
        """The word at a kernel virtual address, errors as `read`."""
        word = self.word
        return int.from_bytes(self.read(address, word.size), word.order)

    def read_unsigned(self, address: int, size: int) -> int:
        """The unsigned number of so many bytes at a kernel virtual address, errors as `read`."""
        return int.from_bytes(self.read(address, size), self.word.order)

    @remembered(FOR_EVER)
    def symbol(self, name: str) -> int | None:
        """The runtime address of a symbol of the vmlinux; None if it has none of that name."""
        symbols = self.image.image.symbols.exact(name) if self.image is not None else ()
        return self.image.symbol_address(symbols[0]) if self.image is not None and symbols else None

    @property
    @remembered(UNTIL_RESUMED)
    def has_types(self) -> bool:
        """Whether drgn knows the kernel's types."""
        try:
            # The first question about a type makes drgn index all of the DWARF.
            waiting("reading the kernel's debug information", lambda: self.prog.type("struct page"))
        except LookupError:
            return False
        return True
