"""`kplug extract VMLINUZ`: the kernel that is packed in a boot image, as scripts/extract-vmlinux writes it."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from kplug.commands.base import HelpFormatter, Parser
from kplug.errors import InputError, UsageError
from kplug.image.boot.boot_image import BootImage, open_boot_image
from kplug.progress import Progress
from kplug.render.safe import safe

_DESCRIPTION = """Write the kernel that is packed in a boot image: the ELF file (x86), or the flat Image (arm64, riscv).
Containers are opened by their headers, one in the other to the end (bzImage, zImage, EFI zboot, uImage, FIT, Android's
boot image, ...; docs/sources.md lists them); anything else is searched. What is written is byte for byte what
scripts/extract-vmlinux gives, where that finds a kernel."""
_EPILOG = """examples:
  kplug extract /boot/vmlinuz-6.1.0-56-amd64 -o vmlinux
  kplug extract --symbols vmlinuz -o vmlinux    for gdb, nm, readelf: the symbol table is made of kallsyms
  kplug extract vmlinuz | strings | grep 'Linux version'

drgn takes such a file as the loaded one (its -s wants DWARF); on a dump, at the prompt of drgn -c DUMP:
  >>> main = prog.main_module()
  >>> main.loaded_file_status = drgn.ModuleFileStatus.WANT
  >>> main.try_file("vmlinux", force=True)
`kplug -c DUMP --vmlinuz VMLINUZ` gives drgn the symbols by itself."""


def parser() -> Parser:
    """The parser of the command's own words."""
    made = Parser(prog="kplug extract", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=HelpFormatter)
    made.add_argument("image", metavar="VMLINUZ", help="a boot image, or a compressed kernel")
    made.add_argument("-o", "--output", metavar="OUT", help="the file to write (default: standard output)")
    made.add_argument(
        "--offset",
        metavar="N",
        type=_number,
        help="begin at this byte of the file, and take the first kernel from there on",
    )
    made.add_argument(
        "--symbols", action="store_true", help="an ELF file with a symbol table, made of the kernel's own kallsyms"
    )
    return made


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None


def run(words: Sequence[str]) -> None:
    """Run one command line. UsageError, InputError."""
    arguments = parser().parse_args(list(words))
    _check_output(arguments)
    with Progress(f"unpacking {os.path.basename(arguments.image)}") as progress:
        image = open_boot_image(arguments.image, progress.update, arguments.offset)
    for warning in image.warnings:
        print(safe(f"kplug: {arguments.image}: {warning}"), file=sys.stderr)
    parts: Sequence[bytes | memoryview] = _with_symbols(image) if arguments.symbols else [image.payload]
    if arguments.output is None or arguments.output == "-":
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    else:
        _write(arguments.output, parts)


def _check_output(arguments: argparse.Namespace) -> None:
    """UsageError for a file that the kernel must not be written to; checked before anything is unpacked."""
    output = arguments.output
    if output is None or output == "-":
        if sys.stdout.isatty():
            raise UsageError("kplug extract: a kernel is not written to a terminal: use -o FILE")
        return
    if os.path.isdir(output):
        raise UsageError(f"kplug extract: {output}: a directory; -o names a file")
    with contextlib.suppress(OSError):
        if os.path.samefile(arguments.image, output):
            raise UsageError(f"kplug extract: {output}: this is the image itself")


def _with_symbols(image: BootImage) -> Sequence[bytes | memoryview]:
    from kplug.image.opening.symbols_elf import elf_with_symbols

    with Progress("reading kallsyms") as progress:
        progress.update()
        return elf_with_symbols(image)


def _write(path: str, parts: Sequence[bytes | memoryview]) -> None:
    """Write the file completely, or leave the old one as it is."""
    try:
        path = os.path.realpath(path)
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):  # /dev/null, a pipe
            with open(path, "wb") as file:
                file.writelines(parts)
            return
        with _temporary_next_to(path) as temporary:
            with open(temporary, "xb") as file:
                file.writelines(parts)
            os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None


@contextlib.contextmanager
def _temporary_next_to(path: str) -> Iterator[str]:
    """A temporary name in the same folder; a file left there is removed."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{os.getpid()}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
