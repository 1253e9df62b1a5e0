"""Outside kplug/arch/ the source assumes no word size and no byte order: `kplug.arch.types.word` has them.

What a target has is asked of its architecture's record, of an ELF file's own header, or of the Program. Fixed numbers
are left to formats that are of one width or byte order by their own specification: FORMATS has these, with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("kplug", "gdb/kplug_gdb")
DECLARATIONS = ROOT / "kplug" / "arch"

# Files whose format has one byte order or width, whatever the machine: what of it, and who says so.
FORMATS = {
    "kplug/image/boot/efi.py": "PE headers are little-endian, and zboot's like them",
    "kplug/image/boot/linux.py": "x86's setup header is little-endian (boot.rst), a zImage's in the order of its magic",
    "kplug/image/boot/phones.py": "Android's, the vendors' and ChromeOS's headers are little-endian",
    "kplug/image/boot/plain.py": "an Image's header is little-endian (booting.rst, boot-image-header.rst)",
    "kplug/image/boot/uboot.py": "uImages and device trees are big-endian (U-Boot's include/image.h)",
    "kplug/image/boot/setup_header.py": "struct setup_header is x86's: little-endian (Documentation/arch/x86/boot.rst)",
    "kplug/image/boot/opener.py": "the unpacked size behind the payload, as scripts/Makefile.lib writes it",
    "kplug/memory/dump_header.py": "flattened streams are big-endian (makedumpfile's IMPLEMENTATION)",
    "kplug/memory/foreign_dumps.py": "magic numbers of other programs' formats, each in the order of its own machines",
    "kplug/memory/raw_image.py": "LiME's headers are little-endian, as the machines are that it runs on",
    "kplug/files/lz4.py": "LZ4 frames are little-endian",
    "kplug/files/lz4_frame.py": "as they are in both formats",
    "kplug/files/lzop.py": "lzop's are big-endian",
    "kplug/files/zstd.py": "Zstandard's are little-endian (RFC 8878)",
    "kplug/space/poison.py": "the kernel's headers define these values with 64 bits",
}

_ORDERED_FORM = re.compile(r"[<>]([0-9]*[xcbBhHiIlLqQnNefdspP?])+")
_FIXED_WIDTH_READS = frozenset(("read_u64", "read_s64"))
_READS = re.compile(r"(^|_)(read|read_physical|read_plainly)$")
_WORD_NAMES = frozenset(("bits", "word_size", "word_bytes", "word_bits"))


def _sources() -> list[Path]:
    files = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in files if DECLARATIONS not in path.parents]


def _is(node: ast.AST | None, *values: object) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, str, bool) and node.value in values


def _assumptions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and kind of what takes a word for 64 bits, or its bytes for being in one order."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            yield from _in_constant(node)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.LShift, ast.RShift)):
            if _is(node.right, 63, 64):
                yield node.lineno, "a shift to the end of a word"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and _is(node.left, 2) and _is(node.right, 64):
            yield node.lineno, "2 ** 64"
        elif isinstance(node, ast.Attribute) and node.attr in _FIXED_WIDTH_READS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call):
            yield from _in_call(node)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            if _is_eight_on(node.slice, node.value):
                yield node.lineno, "a slice of 8 bytes"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _in_defaults(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and _is(node.value, 8, 64):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id.lstrip("_").lower() in _WORD_NAMES for target in targets):
                yield node.lineno, "a width of 64 bits"


def _in_constant(node: ast.Constant) -> Iterator[tuple[int, str]]:
    value = node.value
    if isinstance(value, str) and value in ("little", "big"):
        yield node.lineno, f'"{value}"'
    elif isinstance(value, str) and _ORDERED_FORM.fullmatch(value):
        yield node.lineno, f"struct format {value}"
    elif isinstance(value, int) and value >= 1 << 63:
        yield node.lineno, f"{value:#x}"


def _in_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
    if _READS.search(name) and any(_is(argument, 8) for argument in node.args[1:2]):
        yield node.lineno, f"{name} of 8 bytes"
    if name == "try_read" and any(_is(argument, 8) for argument in node.args[2:3]):
        yield node.lineno, "try_read of 8 bytes"
    if name == "cast" and node.args and _is(node.args[0], "Q"):
        yield node.lineno, 'cast("Q")'
    for keyword in node.keywords:
        if keyword.arg == "little_endian" and _is(keyword.value, True, False):
            yield node.lineno, "little_endian as a constant"
        if keyword.arg in _WORD_NAMES and _is(keyword.value, 8, 64):
            yield node.lineno, f"{keyword.arg} as a constant"


def _is_eight_on(part: ast.Slice, of: ast.AST) -> bool:
    """`[start : start + 8]`, and `[start:][:8]` by its second half."""
    upper = part.upper
    if not isinstance(upper, ast.BinOp) or not isinstance(upper.op, ast.Add) or not _is(upper.right, 8):
        return isinstance(of, ast.Subscript) and part.lower is None and _is(upper, 8)
    return part.lower is not None and ast.dump(part.lower) == ast.dump(upper.left)


def _in_defaults(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[int, str]]:
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(plain[len(plain) - len(arguments.defaults) :], arguments.defaults)]
    pairs += [(name, value) for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults) if value is not None]
    for argument, default in pairs:
        if argument.arg == "little_endian" and _is(default, True, False):
            yield default.lineno, "little_endian has a default"
        if argument.arg in _WORD_NAMES and _is(default, 8, 64):
            yield default.lineno, f"{argument.arg} has a default"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_assumes_a_word(path: Path) -> None:
    found = list(_assumptions(ast.parse(path.read_text())))
    assert found == [] or str(path.relative_to(ROOT)) in FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_listed_as_long_as_it_is_needed(name: str) -> None:
    assert list(_assumptions(ast.parse((ROOT / name).read_text())))


@pytest.mark.parametrize(
    "text",
    [
        "if not address >> 63: pass",
        "MASK = (1 << 64) - 1",
        "MASK = 0xFFFF_FFFF_FFFF_FFFF",
        "kernel_half = 0xffff800000000000",
        'int.from_bytes(data, "little")',
        'order = "<" + "Q"; struct.unpack("<Q", data)',
        'struct.Struct("<IBBHQQ")',
        "prog.read_u64(place)",
        "kernel.read(address, 8)",
        "try_read(self._kernel.read_physical, address, 8)",
        'memoryview(data).cast("Q")',
        "int.from_bytes(data[at : at + 8], order)",
        "int.from_bytes(entry[count:][:8], order)",
        "notes_in(data, little_endian=True)",
        "def f(bits: int = 64): pass",
        "def f(*, little_endian: bool = True): pass",
        "word_size = 8",
        "signed = number - 2 ** 64",
    ],
)
def test_an_assumption_is_found(text: str) -> None:
    assert list(_assumptions(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "if not word.is_kernel(address): pass",
        "word.at(data, offset)",
        "kernel.read_word(address)",
        "struct.unpack_from(order + 'II', data)",
        "arguments = 'little by little'",
        "size // 8",
        "line = '<input>'",
        "kind = '<frozen'",
        "gone[:8]",
        "1 << 32",
        "read(address, size)",
    ],
)
def test_what_asks_is_none(text: str) -> None:
    assert not list(_assumptions(ast.parse(text)))
