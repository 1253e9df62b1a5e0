"""Faults in the words of powerpc and s390, which differ from those of the other architectures."""

from __future__ import annotations

from kplug.log.common_lines import END_OF_TRACE
from kplug.log.kinds import EventKind, Wording

_ADDRESS = r"(?:0x)?(?P<address>[0-9a-f]{1,16})"
_POWERPC = "arch/powerpc/mm/fault.c, bad_page_fault()"
_S390 = "arch/s390/mm/fault.c"
# In the first page.
_NULL = r"(?:0x)?(?P<address>0{0,13}[0-9a-f]{1,3})(?![0-9a-fx])"
_ON = r" on (?P<access>read|write)"
_EXECUTE = (("access", "execute"),)
# arch/s390/mm/fault.c: the address has no bits below the page's.
_PAGE_ONLY = (("page_only", "yes"),)
_DETAILS = (
    Wording(r"Faulting instruction address: ", "Faulting instruction address: 0xc000000000a1b2c4", _POWERPC),
    Wording(
        r"Oops: (?:Kernel access of bad area|Bad kernel|Exception in kernel|Machine check|Weird page fault)",
        "Oops: Kernel access of bad area, sig: 11 [#1]",
        "arch/powerpc/kernel/traps.c, __die()",
    ),
    Wording(
        rf"Failing address: (?!0{{13}}){_ADDRESS} TEID",
        "Failing address: 6b6b6b6b6b6b6000 TEID: 6b6b6b6b6b6b6803",
        _S390,
        states=_PAGE_ONLY,
    ),
    Wording(
        r"Fault in |AS:[0-9a-f]{16}|Oops: [0-9a-f]{4} ilc:",
        "Fault in home space mode while using kernel ASCE.",
        f"{_S390}, dump_fault_info()",
    ),
    Wording(r"CFAR: |[DR]AR: |Instruction dump:", "CFAR: c000000000a1b280 DAR: 0000000000000008", "show_regs()"),
)


def _oops(type: str, title: str, sentence: str, *begins: Wording, general: bool = False) -> EventKind:
    return EventKind(type, title, sentence, begins, _DETAILS, ends=(END_OF_TRACE,), general=general, resumes=True)


KINDS = (
    _oops(
        "null-deref",
        "BUG: unable to handle kernel NULL pointer dereference[ in {function}]",
        "{who} {did} {target}[ in {function}].",
        Wording(
            rf"BUG: Kernel NULL pointer dereference(?:{_ON})? at {_ADDRESS}",
            "BUG: Kernel NULL pointer dereference on read at 0x00000008",
            f"{_POWERPC}, 5.1 and later",
        ),
        Wording(
            r"BUG: Unable to handle kernel instruction fetch \(NULL",
            "BUG: Unable to handle kernel instruction fetch (NULL pointer?)",
            _POWERPC,
            states=_EXECUTE,
        ),
        Wording(
            rf"Unable to handle kernel paging request for data at address {_NULL}",
            "Unable to handle kernel paging request for data at address 0x00000008",
            f"{_POWERPC}, before 5.1",
        ),
        Wording(
            r"Unable to handle kernel paging request for instruction fetch(?![^\n]{0,40}\S)",
            "Unable to handle kernel paging request for instruction fetch",
            f"{_POWERPC}, before 5.1",
            title="BUG: unable to handle kernel paging request[ in {function}]",
            states=_EXECUTE,
        ),
        Wording(
            rf"Failing address: {_NULL} TEID",
            "Failing address: 0000000000000000 TEID: 0000000000000483",
            _S390,
            states=_PAGE_ONLY,
        ),
    ),
    _oops(
        "stack-overflow",
        "kernel stack overflow[ in {function}]",
        "{who} ran over the end of a kernel stack[ in {function}].",
        Wording(
            r"Kernel stack overflow\.", "Kernel stack overflow.", "arch/s390/kernel/traps.c, kernel_stack_overflow()"
        ),
        Wording(
            r"Kernel stack overflow in process ",
            "Kernel stack overflow in process c00000003fa00000, r1=c00000003fa57f80",
            "arch/powerpc/kernel/traps.c, StackOverflow()",
        ),
        Wording(
            r"Kernel panic - not syncing: (?P<panic>(?:Corrupt kernel stack, can't continue|kernel stack overflow))",
            "Kernel panic - not syncing: Corrupt kernel stack, can't continue.",
            "arch/s390/kernel/traps.c, kernel_stack_overflow(), its first line lost",
        ),
    ),
    _oops(
        "page-fault",
        "BUG: unable to handle kernel paging request[ in {function}]",
        "{who} faulted[ in {function}] as it {did} {target}.",
        Wording(
            rf"BUG: Unable to handle kernel (?:data access(?:{_ON})?|instruction fetch) at {_ADDRESS}",
            "BUG: Unable to handle kernel data access on write at 0xd000000012345678",
            f"{_POWERPC}, 5.1 and later",
        ),
        Wording(
            rf"Unable to handle kernel paging request for (?:data|unaligned access) at address {_ADDRESS}",
            "Unable to handle kernel paging request for data at address 0xd000000012345678",
            f"{_POWERPC}, before 5.1",
        ),
        Wording(
            r"Unable to handle kernel pointer dereference in virtual kernel address space",
            "Unable to handle kernel pointer dereference in virtual kernel address space",
            f"{_S390}, do_no_context()",
        ),
        Wording(
            r"Unable to handle kernel pointer dereference at virtual kernel address ",
            "Unable to handle kernel pointer dereference at virtual kernel address 0000000000000000",
            f"{_S390}, before 3.14",
        ),
        general=True,
    ),
)
