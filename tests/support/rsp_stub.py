"""A gdb stub that is not QEMU's: the memory of a paging ELF dump over the remote protocol, no monitor, no packets of
its own. It can be told to misbehave.

Protocol: gdb doc, appendix "GDB Remote Serial Protocol".
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from support.elf_builder import Elf

_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "rip")


class ElfMemory:
    """The PT_LOAD segments of an ELF core."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        header = self._file.read(64)
        offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        self._file.seek(offset)
        table = self._file.read(size * count)
        rows = [struct.unpack_from("<IIQQQQQQ", table, index * size) for index in range(count)]
        self.loads = [(row[3], row[2], row[5]) for row in rows if row[0] == 1]

    def read(self, address: int, size: int) -> bytes | None:
        """As many of the bytes as there are in one segment; None if there are none."""
        for start, offset, length in self.loads:
            if start <= address < start + length:
                self._file.seek(offset + address - start)
                return self._file.read(min(size, start + length - address))
        return None


class SectionMemory:
    """The sections of a kernel that was made for a test, moved by so many bytes. Each answer takes `seconds`."""

    def __init__(self, elf: Elf, moved: int = 0, seconds: float = 0.0) -> None:
        self._sections = [(each.address + moved, bytes(each.data)) for each in elf.sections if each.data]
        self._seconds = seconds

    def read(self, address: int, size: int) -> bytes | None:
        time.sleep(self._seconds)
        for start, data in self._sections:
            if start <= address < start + len(data):
                return data[address - start :][:size].ljust(size, b"\0")
        return None


def registers_of(text: str, cpu: int = 0) -> dict[str, int]:
    """A CPU's registers from QEMU's `info registers -a`."""
    blocks = re.split(r"CPU#\d+\s", text)
    found = {name.lower(): int(value, 16) for name, value in re.findall(r"\b(R\w\w?)\s*=([0-9a-f]+)", blocks[cpu + 1])}
    selector = re.search(r"^CS =([0-9a-f]{4})", blocks[cpu + 1], re.MULTILINE)
    assert selector is not None
    found["cs"] = int(selector.group(1), 16)
    return found


class Stub:
    """Listens on loopback and serves one gdb after the other.

    `drop_after`: close the connection at that memory packet (1 is the first). `silent_after`: answer no more from that
    memory packet on. `unreadable`: all memory is. `others`: what it answers to packets that begin so.
    """

    def __init__(
        self,
        memory: ElfMemory | SectionMemory,
        registers: Mapping[str, int],
        *,
        drop_after: int | None = None,
        silent_after: int | None = None,
        unreadable: bool = False,
        others: Mapping[str, str] | None = None,
    ) -> None:
        self.memory = memory
        self.registers = dict(registers)
        self.packets: list[str] = []
        self._drop_after, self._silent_after, self._unreadable = drop_after, silent_after, unreadable
        self._others = dict(others or {})
        self._reads = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *rest: object) -> None:
        self._server.close()

    @property
    def command(self) -> str:
        """What to type in gdb."""
        return f"target remote 127.0.0.1:{self.port}"

    def memory_packets(self) -> int:
        return sum(packet.startswith("m") for packet in self.packets)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        buffer = b""
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            buffer += data
            while True:
                match = re.search(rb"\$([^#]*)#[0-9a-f]{2}", buffer)
                if match is None:
                    break
                buffer = buffer[match.end() :]
                packet = match.group(1).decode("latin-1")
                self.packets.append(packet)
                answer = self._answer(packet)
                if answer is None:
                    return
                if answer == "silence":
                    continue
                payload = answer.encode()
                connection.sendall(b"+$" + payload + b"#" + f"{sum(payload) & 0xFF:02x}".encode())

    def _answer(self, packet: str) -> str | None:
        for start, answer in self._others.items():
            if packet.startswith(start):
                return answer
        if packet.startswith("qSupported"):
            return "PacketSize=1000"
        if packet == "?":
            return "S05"
        if packet == "g":
            return self._register_bytes().hex()
        if packet.startswith("m"):
            return self._memory_answer(packet)
        if packet[0] in "HT":
            return "OK"
        if packet == "qAttached":
            return "1"
        if packet[0] in "Dk":
            return "OK"
        return ""

    def _register_bytes(self) -> bytes:
        values = self.registers
        wide = struct.pack("<17Q", *(values.get(name, 0) for name in _REGISTERS))
        narrow = struct.pack("<7I", 0x202, values.get("cs", 0x10), 0x18, 0, 0, 0, 0)
        return wide + narrow

    def _memory_answer(self, packet: str) -> str | None:
        self._reads += 1
        if self._drop_after is not None and self._reads >= self._drop_after:
            return None
        if self._silent_after is not None and self._reads >= self._silent_after:
            return "silence"
        address, size = (int(part, 16) for part in packet[1:].split(","))
        data = None if self._unreadable else self.memory.read(address, size)
        return "E14" if data is None else data.hex()
