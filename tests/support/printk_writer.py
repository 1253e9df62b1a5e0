"""The kernel's log as printk writes it into memory, on any machine: the ring of 5.10, and the buffer before it.

The ring is after kernel/printk/printk_ringbuffer.c of 6.12 (prb_init, prb_reserve, data_alloc), the buffer after
kernel/printk/printk.c of 4.19 (log_store). Descriptors and texts that make room become free as there.
"""

from __future__ import annotations

from collections.abc import Mapping

from kplug.arch.types.word import WordFormat
from kplug.memory.reading import FaultError
from kplug.memory.vmcoreinfo import VmcoreInfo

RESERVED, COMMITTED, FINALIZED, REUSABLE = range(4)
FAILED_LPOS, EMPTY_LINE_LPOS = 1, 3
PRB, RING, DESCS, INFOS, TEXTS = 0x1000, 0x2000, 0x10000, 0x80000, 0x200000
LOG_BUF, BUFFER = 0x1000, 0x10000
CPU = 1 << 31


class Memory:
    """Pieces of memory, of which some addresses may be missing."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytearray] = {}
        self.missing: list[range] = []
        self.largest = 0

    def read(self, address: int, size: int) -> bytes:
        self.largest = max(self.largest, size)
        for each in self.missing:
            if each.start < address + size and address < each.stop:
                raise FaultError(f"the dump does not have {max(each.start, address):#x}")
        for start, data in self.pieces.items():
            if start <= address and address + size <= start + len(data):
                return bytes(data[address - start : address - start + size])
        raise FaultError(f"nothing is mapped at {address:#x}")

    def put(self, address: int, data: bytes) -> None:
        for start, piece in self.pieces.items():
            if start <= address and address + len(data) <= start + len(piece):
                piece[address - start : address - start + len(data)] = data
                return
        raise AssertionError(f"{address:#x} is in no piece")


class Ring(Memory):
    """printk's ring buffer, with `1 << bits` descriptors and as many bytes of text as `1 << text_bits`.
    `fills`: a text may end where the ring does."""

    def __init__(self, word: WordFormat, bits: int = 4, text_bits: int = 10, fills: bool = False) -> None:
        super().__init__()
        self.word, self.count, self.size, self.fills = word, 1 << bits, 1 << text_bits, fills
        self.ids = word.mask >> 2
        self.desc_size, self.info_size = 3 * word.size, 88
        self.pieces = {
            PRB: bytearray(word.packed([RING])),
            RING: bytearray(11 * word.size),
            DESCS: bytearray(self.count * self.desc_size),
            INFOS: bytearray(self.count * self.info_size),
            TEXTS: bytearray(self.size),
        }
        self.head = self.tail = -(self.count + 1) & 0xFFFFFFFF & self.ids  # DESC0_ID
        self.next_seq = 0
        self.head_lpos = -self.size & word.mask  # BLK0_LPOS
        self.blocks: list[tuple[int, int]] = []  # of the texts that are there: IDs, and how many bytes each takes
        self.number(RING, bits)
        self.put(RING + word.size, word.packed([DESCS, INFOS]))
        self.number(RING + 6 * word.size, text_bits)
        self.put(RING + 7 * word.size, word.packed([TEXTS]))
        self.describe(self.head, REUSABLE, FAILED_LPOS, FAILED_LPOS)
        self.heads()

    def number(self, address: int, value: int, size: int = 4) -> None:
        self.put(address, value.to_bytes(size, self.word.order))

    def heads(self) -> None:
        self.put(RING + 3 * self.word.size, self.word.packed([self.head, self.tail]))

    def describe(self, id: int, state: int, begin: int, next: int) -> None:
        self.put(self.descriptor(id), self.word.packed([state << self.word.bits - 2 | id, begin, next]))

    def descriptor(self, id: int) -> int:
        return DESCS + id % self.count * self.desc_size

    def reuse(self, id: int) -> None:
        """The oldest record makes room."""
        at = self.descriptor(id) + self.word.size - 1 if self.word.little_endian else self.descriptor(id)
        self.put(at, bytes([self.read(at, 1)[0] | 0xC0]))
        self.tail = id + 1 & self.ids
        self.blocks = [each for each in self.blocks if each[0] != id]

    def printk(self, text: bytes, time: int = 0, caller: int = 0, state: int = FINALIZED, lost: bool = False) -> int:
        """Write a record; returns its ID."""
        while self.head - self.tail + 1 & self.ids >= self.count:
            self.reuse(self.tail)
        self.head = id = self.head + 1 & self.ids
        if lost or not text:
            begin = next = FAILED_LPOS if lost else EMPTY_LINE_LPOS
        else:
            begin, next = self.block(id, text)
        self.describe(id, state, begin, next)
        info = INFOS + id % self.count * self.info_size
        for at, value, size in ((0, self.next_seq, 8), (8, time, 8), (16, len(text), 2), (20, caller, 4)):
            self.number(info + at, value, size)
        self.next_seq += 1
        self.heads()
        return id

    def block(self, id: int, text: bytes) -> tuple[int, int]:
        """Place a text; returns where it begins, and where the next one does."""
        word, mask = self.word, self.word.mask
        needed = -(-(word.size + len(text)) // word.size) * word.size
        begin = self.head_lpos
        at, taken = begin % self.size, needed
        # Before 67e1b0052f6b ("don't needlessly wrap data blocks around") none ends where the ring does.
        if at + needed > self.size or (at + needed == self.size and not self.fills):
            taken = self.size - at + needed
        while self.blocks and sum(size for _, size in self.blocks) + taken > self.size:
            while self.tail != self.blocks[0][0]:  # those without a text
                self.reuse(self.tail)
            self.reuse(self.tail)
        self.put(TEXTS + at, word.packed([id]))
        if taken != needed:
            at = 0
            self.put(TEXTS, word.packed([id]))
        self.put(TEXTS + at + word.size, text)
        self.blocks.append((id, taken))
        self.head_lpos = begin + taken & mask
        return begin, self.head_lpos

    def note(self) -> VmcoreInfo:
        """What log_buf_vmcoreinfo_setup() writes."""
        w = self.word.size
        lines = [f"SYMBOL(prb)={PRB:x}"]
        layouts: Mapping[str, tuple[int, Mapping[str, int]]] = {
            "printk_ringbuffer": (11 * w, {"desc_ring": 0, "text_data_ring": 6 * w, "fail": 10 * w}),
            "prb_desc_ring": (6 * w, {"count_bits": 0, "descs": w, "infos": 2 * w, "head_id": 3 * w, "tail_id": 4 * w}),
            "prb_desc": (3 * w, {"state_var": 0, "text_blk_lpos": w}),
            "prb_data_blk_lpos": (2 * w, {"begin": 0, "next": w}),
            "printk_info": (88, {"seq": 0, "ts_nsec": 8, "text_len": 16, "caller_id": 20, "dev_info": 24}),
            "prb_data_ring": (4 * w, {"size_bits": 0, "data": w}),
        }
        for name, (size, members) in layouts.items():
            lines.append(f"SIZE({name})={size}")
            lines += [f"OFFSET({name}.{member})={offset}" for member, offset in members.items()]
        return VmcoreInfo("\n".join(lines))


class Buffer(Memory):
    """The buffer of 3.5 to 5.9, with that many bytes. `with_callers`: CONFIG_PRINTK_CALLER (5.1)."""

    def __init__(
        self, word: WordFormat, size: int = 1024, with_callers: bool = False, name: str = "printk_log"
    ) -> None:
        super().__init__()
        self.word, self.size, self.name, self.with_callers = word, size, name, with_callers
        self.header = 20 if with_callers else 16
        self.pieces = {LOG_BUF: bytearray(0x100), BUFFER: bytearray(size)}
        self.first = self.next = 0
        self.put(LOG_BUF, word.packed([BUFFER]))
        self.indexes()

    def indexes(self) -> None:
        for at, value in enumerate((self.size, self.first, self.next)):
            self.put(LOG_BUF + 0x10 + 4 * at, value.to_bytes(4, self.word.order))

    def printk(self, text: bytes, time: int = 0, caller: int = 0, dictionary: bytes = b"") -> None:
        align = 4 if self.with_callers else 8
        total = -(-(self.header + len(text) + len(dictionary)) // align) * align
        while not self.has_space(total):
            length = self.number(self.first + 8, 2)
            self.first = self.first + length if length else self.number(8, 2)
        if self.next + total + self.header > self.size:  # a header of zeros: the rest is at the start
            self.put(BUFFER + self.next, bytes(self.header))
            self.next = 0
        parts = [(time, 8), (total, 2), (len(text), 2), (len(dictionary), 2), (0, 1), (0x22, 1)]
        parts += [(caller, 4)] if self.with_callers else []
        record = b"".join(value.to_bytes(size, self.word.order) for value, size in parts) + text + dictionary
        self.put(BUFFER + self.next, record.ljust(total, b"\0"))
        self.next += total
        self.indexes()

    def has_space(self, total: int) -> bool:
        """logbuf_has_space(): it is never full, so that equal indexes mean that it is empty."""
        if self.next >= self.first:
            return self.size - self.next >= total + self.header or self.first > total + self.header
        return self.first - self.next >= total + self.header

    def number(self, at: int, size: int) -> int:
        return self.word.unsigned(bytes(self.pieces[BUFFER]), at, size)

    def note(self) -> VmcoreInfo:
        symbols = {"log_buf": LOG_BUF} | {
            name: LOG_BUF + 0x10 + 4 * at for at, name in enumerate(("log_buf_len", "log_first_idx", "log_next_idx"))
        }
        members = {"ts_nsec": 0, "len": 8, "text_len": 10, "dict_len": 12} | (
            {"caller_id": 16} if self.with_callers else {}
        )
        lines = [f"SYMBOL({name})={address:x}" for name, address in symbols.items()]
        lines += [f"SIZE({self.name})={self.header}"]
        lines += [f"OFFSET({self.name}.{member})={offset}" for member, offset in members.items()]
        return VmcoreInfo("\n".join(lines))
