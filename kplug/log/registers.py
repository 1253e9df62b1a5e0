"""The lines of a report that have registers, stack words or machine code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kplug.log.event import Code, Frame
from kplug.log.forms import HEX, SYMBOL_AND_MODULE, as_number
from kplug.log.kinds import Wording

_SYMBOL = SYMBOL_AND_MODULE
_USER_CS = frozenset(("0033", "0023", "0073", "002b", "007b"))

# The instruction pointer and what it is in. `cs`: the segment, which tells the kernel's from a program's.
POINTERS = (
    Wording(
        rf"RIP: (?P<cs>[0-9a-f]{{4}}):(?:\[<(?P<address>{HEX})>\]\s+\[<{HEX}>\]\s+)?(?:{_SYMBOL}|0x"
        rf"(?P<bare>[0-9a-f]{{1,16}}))?",
        "RIP: 0010:schedule+0x4/0xc7",
        "arch/x86/kernel/dumpstack.c, show_ip(); with [<>] before 4.11",
    ),
    Wording(
        rf"EIP: (?P<cs>[0-9a-f]{{4}}):\[<(?P<address>{HEX})>\] EFLAGS: [0-9a-f]{{8}} CPU: (?P<cpu>\d{{1,5}})",
        "EIP: 0060:[<c10a2b3c>] EFLAGS: 00010246 CPU: 0",
        "arch/x86/kernel/process_32.c, __show_regs() before 4.11",
    ),
    Wording(
        rf"[RE]?IP:? {{1,2}}(?:is at )?\[<(?P<address>{HEX}|\(null\))>\]\s+(?:{_SYMBOL}|0x"
        rf"(?P<bare>[0-9a-f]{{1,16}})|\(null\))?",
        "IP: [<ffffffff81a114f4>] schedule+0x4/0xc7",
        "arch/x86/mm/fault.c, show_fault_oops(); __die() before 4.11",
    ),
    Wording(
        rf"(?:IP|EIP|PC is at|EIP is at|pc :|epc :|EIP:|IP:):?\s+(?:{_SYMBOL}|0x(?P<bare>[0-9a-f]{{1,16}}))",
        "pc : schedule+0x4/0xc7",
        "__show_regs() of arch/arm64, arch/arm, arch/riscv, arch/x86 (32 bits)",
    ),
    Wording(
        rf"NIP \[(?P<address>{HEX})\]\s+(?:{_SYMBOL}|0x(?P<bare>[0-9a-f]{{1,16}}))",
        "NIP [c0000000009b8c34] schedule+0x4/0xc7",
        "arch/powerpc/kernel/process.c, show_regs()",
    ),
    Wording(
        rf"Krnl PSW : [0-9a-f]{{16}} (?P<address>[0-9a-f]{{16}})(?:\s+\({_SYMBOL})?",
        "Krnl PSW : 0704d00180000000 0000000000b8c34a (schedule+0x4/0xc7)",
        "arch/s390/kernel/dumpstack.c, show_registers()",
    ),
    Wording(
        r"epc ?: (?P<address>[0-9a-f]{16}) ra : ", "epc: ffffffe000207654 ra : ffffffe000207654 sp : 0", "arch/riscv"
    ),
    Wording(
        rf"(?:epc|era|ERA|pc)\s{{0,3}}:\s+(?P<address>{HEX})\s+{_SYMBOL}",
        "epc   : ffffffff80a114f4 schedule+0x4/0xc7",
        "show_regs() of arch/mips and arch/loongarch",
    ),
)
# A register's name and value, or what takes the place of the value.
_PAIR = re.compile(
    r"(?<![\w.$])(?P<name>ORIG_[RE]AX|[RE]?FLAGS|SS:E?SP|badaddr|status|cause|[A-Za-z]\w{0,6}"
    r"|\$ ?\d{1,2})\s{0,4}:\s{0,4}"
    r"(?:(?P<cs>[0-9a-fA-F]{4}):)?(?:\[<)?(?P<value>[0-9a-fA-F]{16}|[0-9a-fA-F]{8})"
    r"(?:\((?P<limit>[0-9a-f]{1,8})\))?(?![\w.$+])"
)
_POINTER_NAME = re.compile(r"[RE]IP(?=:| is at)|NIP")
_SEGMENTS = re.compile(
    r"CS:\s{1,2}(?P<cs>[0-9a-f]{4}) DS: [0-9a-f]{4} ES: [0-9a-f]{4}(?: [A-Z]{2}: [0-9a-f]{4}){0,3} CR0: "
    r"(?P<cr0>[0-9a-f]{8,16})"
)
_SEVERAL = re.compile(
    r"(?P<name>GPR|\$ ?)(?P<first>\d\d?)\s?: (?P<values>[0-9a-f]{8,16}(?: {1,3}[0-9a-f]{8,16}){0,7})\s*$"
)
_GPRS = re.compile(r"(?:Krnl|User) GPRS: (?P<values>[0-9a-f]{16}(?: [0-9a-f]{16}){0,3})")
_PSW = re.compile(r"Krnl PSW : (?P<mask>[0-9a-f]{16}) (?P<address>[0-9a-f]{16})")
_WORDS = re.compile(r"(?:(?P<base>[0-9a-f]{4}): )?(?P<words>[0-9a-f]{8,16}(?: {1,2}[0-9a-f]{8,16}){0,15})\s*$")
_ONLY_SYMBOLS = re.compile(rf"(?P<name>lr|ra|LR is at)\s{{0,2}}:?\s+(?:\[[0-9a-f]{{8,16}}\] )?{_SYMBOL}")
_FLAGS_LINES = re.compile(
    r"pstate: [0-9a-f]{8} |Flags: [nNzZcCvV]{4}|Control: [0-9a-f]{8}|Register r\d{1,2} information:|Last"
    r" Breaking-Event-Address:"
    r"|MSR:  ?[0-9a-f]{8,16} |REGS: [0-9a-f]{8,16} TRAP|CFAR: [0-9a-f]{16}|R:\d T:\d IO:\d|IRQMASK: |PMR|softe:"
    r"|pmr_save: |Call Trace"
    r"|x\d{1,2}\s?: |PKRU: [0-9a-f]{1,8}|Stack: \(0x|Exception stack\(0x"
)


def has_user_segment(text: str) -> bool:
    """Whether the registers there are a program's: by the segment of x86."""
    match = re.match(r"(?:RIP|EIP|RSP|ESP): (?P<cs>[0-9a-f]{4}):", text)
    return match is not None and match.group("cs") in _USER_CS


def read_registers(message: str) -> dict[str, int]:
    """The registers in a line, by the names that it has for them; those in a list are r0 and so on."""
    segments = _SEGMENTS.match(message)
    if segments is not None:
        return {"CS": int(segments.group("cs"), 16), "CR0": int(segments.group("cr0"), 16)}
    several = _SEVERAL.match(message)
    if several is not None:
        first = int(several.group("first"))
        return {f"r{first + index}": int(value, 16) for index, value in enumerate(several.group("values").split())}
    psw = _PSW.match(message)
    if psw is not None:
        return {"pswm": int(psw.group("mask"), 16), "pswa": int(psw.group("address"), 16)}
    gprs = _GPRS.match(message)
    if gprs is not None:
        return {f"r{index}": int(value, 16) for index, value in enumerate(gprs.group("values").split())}
    return {match.group("name"): int(match.group("value"), 16) for match in _PAIR.finditer(message)}


def is_registers(message: str) -> bool:
    """Whether the line is one of those between registers that have none to name."""
    return _FLAGS_LINES.match(message) is not None or _ONLY_SYMBOLS.match(message) is not None


def link_frame(message: str) -> Frame | None:
    """Where the call returns to that was the last, of machines with a register for that."""
    match = _ONLY_SYMBOLS.match(message)
    return ip_frame({name: value for name, value in match.groupdict().items() if value}, 0) if match else None


def read_words(message: str) -> tuple[int, ...]:
    """The words of a stack dump, or the further registers of a list."""
    match = _WORDS.match(message)
    return tuple(int(word, 16) for word in match.group("words").split()) if match is not None else ()


def pointer_name(message: str) -> str | None:
    """The name of the instruction pointer in its line; None where that is for all of its architecture's widths."""
    match = _POINTER_NAME.match(message)
    return match.group() if match is not None else None


def ip_frame(stated: dict[str, str], number: int) -> Frame:
    """The frame that a pointer's line names."""
    address = stated.get("address") or stated.get("bare")
    return Frame(
        stated.get("symbol"),
        as_number(stated.get("offset")),
        as_number(stated.get("size")),
        stated.get("module") or stated.get("module_before"),
        stated.get("build_id"),
        int(address, 16) if address and address[0] != "(" else None,
        False,
        number,
    )


_CODE = re.compile(r"(?:Code|Instruction dump|Krnl Code):\s{0,4}(?P<code>[^\n]{0,1000})")
_UNIT = re.compile(r"(?P<open>[<(]?)(?P<hex>[0-9a-f]{8}|[0-9a-f]{4}|[0-9a-f]{2})[>)]?$")
_CODE_ROW = re.compile(r"[<]?[0-9a-f]{2}[>]?(?: [<]?[0-9a-f]{2}[>]?){0,80}\s*$")
_DUMP_ROW = re.compile(r"[<]?[0-9a-f]{8}>?(?: [<]?[0-9a-f]{8}>?){1,15}\s*$")


def code_text(message: str) -> str | None:
    """What follows `Code:`; None if the line does not begin so."""
    match = _CODE.match(message)
    return match.group("code") if match is not None else None


def is_dump_row(message: str) -> bool:
    """Whether it is a further row of powerpc's "Instruction dump:"."""
    return _DUMP_ROW.match(message) is not None or message.startswith("XXXXXXXX ")


def is_code_row(message: str) -> bool:
    """Whether it is the rest of a line of bytes that a mail program wrapped."""
    return _CODE_ROW.match(message) is not None


def read_code(text: str) -> Code | None:
    """The bytes; None where the kernel could not read them, or the line is cut within one."""
    units = list(_units(text))
    sizes = {len(digits) for _, digits in units}
    if not units or len(sizes) != 1:
        return None if not units else _mixed(units)
    unit = sizes.pop() // 2
    marked = next((index * unit for index, (is_marked, _) in enumerate(units) if is_marked), None)
    return Code(bytes.fromhex("".join(digits for _, digits in units)), marked, unit)


def _mixed(units: list[tuple[bool, str]]) -> Code:
    """Instructions of two and of four bytes (riscv, thumb), as they are."""
    data, marked = "", None
    for is_marked, digits in units:
        if is_marked:
            marked = len(data) // 2
        data += digits
    return Code(bytes.fromhex(data), marked, 2)


def _units(text: str) -> Iterator[tuple[bool, str]]:
    for word in text.split():
        match = _UNIT.match(word)
        if match is None:
            return
        yield bool(match.group("open")), match.group("hex")
