"""kallsyms tables as the kernel's build lays them out, release by release: written from the format, not from kplug.

What kplug reads of it was also read, when it was written, of the output of the real scripts/kallsyms of Debian's 5.10,
6.1, 6.12 and 7.2 (linux-kbuild), for the forms that each of these can write.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Form:
    """What differs between releases, architectures and configurations."""

    release: str
    order: str  # "before" or "after": where the addresses are
    encoding: str
    bits: int = 64
    byte_order: str = "little"
    sequence: bool = True  # since 6.2
    wide: bool = False  # count and markers are words, up to 4.19
    long_names: bool = True  # lengths of two bytes, since 6.1
    alignment: int = 0  # of each table; 0: a word's

    def __str__(self) -> str:
        return f"{self.release} {self.encoding} {self.bits} bit {self.byte_order}-endian"


ABSOLUTE, BASE, PERCPU, PC = "absolute", "base-relative", "base-relative with absolute per-CPU", "PC-relative"


def _forms() -> Iterable[Form]:
    for byte_order in ("little", "big"):
        for bits in (64, 32):
            common = {"bits": bits, "byte_order": byte_order}
            for encoding in (ABSOLUTE, BASE, PERCPU):
                if encoding == PERCPU and bits == 32:
                    continue
                old = {**common, "sequence": False, "long_names": False}
                yield Form("4.19", "before", encoding, **old, wide=True)
                yield Form("4.20 to 6.0", "before", encoding, **old)
                yield Form("6.1", "before", encoding, **common, sequence=False)
                yield Form("6.2 and 6.3", "before", encoding, **common)
                yield Form("6.4 to 6.10", "after", encoding, **common)
            yield Form("7.0", "after", PC, **common, alignment=4)
        yield Form("7.0", "after", ABSOLUTE, bits=32, byte_order=byte_order, alignment=4)


FORMS = tuple(_forms())


@dataclass
class Written:
    """The tables' bytes, and where each is in them."""

    data: bytearray = field(default_factory=bytearray)
    places: dict[str, int] = field(default_factory=dict)


def some_symbols(form: Form, text: int, number: int = 700, seed: int = 4) -> list[tuple[int, str, str]]:
    """Symbols of a kernel whose image is at `text`: sorted, aliases and per-CPU ones (at 0) among them."""
    chance = random.Random(seed)
    words = [chance.choice("bcdfgklmnprst") + chance.choice("aeiou") + chance.choice("klmnrst") for _ in range(60)]
    symbols = [(text, "T", "_text"), (text, "T", "_stext")]
    address = text
    for index in range(number - 3):
        address += chance.choice((0, 4, 16, 64, 4096))
        name = "_".join(chance.choices(words, k=chance.randint(1, 5))) + f"_{index}"
        if index % 3 == 0:
            name += chance.choice((".isra.0", ".cold", "$Vé", ".llvm.1234567890"))
        if form.long_names and index % 50 == 7:
            name = "_RNv" + "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=chance.randint(150, 400)))
        symbols.append((address, chance.choice("TtDdRrBbWV"), name))
    symbols.append((address + 0x2000, "B", "_end"))
    if form.encoding == PERCPU:
        symbols = [(4096 * index, "A", f"percpu_{index}") for index in range(9)] + symbols
    return symbols


def tokens_for(names: Sequence[bytes]) -> list[bytes]:
    """256 tokens: characters that are used stand for themselves, the other codes for frequent pieces."""
    used = set(b"".join(names)) | set(b"0123456789")
    pieces = Counter(name[at : at + size] for name in names for size in (2, 3, 4) for at in range(len(name) - size + 1))
    frequent = iter([piece for piece, _ in pieces.most_common(300)])
    return [bytes([code]) if code in used else next(frequent, b"") for code in range(256)]


def write(symbols: Sequence[tuple[int, str, str]], form: Form, address: int) -> Written:
    """The tables of symbols (address, letter, name; sorted), as they are when the first byte lies at `address`."""
    word = form.bits // 8
    alignment = form.alignment or word
    out = Written()

    def number(value: int, size: int) -> bytes:
        return (value & (1 << 8 * size) - 1).to_bytes(size, form.byte_order)  # type: ignore[arg-type]

    def table(name: str, data: bytes) -> None:
        out.data += bytes(-len(out.data) % alignment)
        out.places[name] = len(out.data)
        out.data += data

    names = [(letter + name).encode() for _, letter, name in symbols]
    tokens = tokens_for(names)
    # Single characters last: the longest piece that fits is taken.
    piece = re.compile(b"|".join(re.escape(token) for token in sorted(filter(None, tokens), key=len, reverse=True)))
    codes = {token: bytes([code]) for code, token in enumerate(tokens) if token}
    blob, markers = bytearray(), []
    for index, name in enumerate(names):
        if index % 256 == 0:
            markers.append(len(blob))
        packed = b"".join(codes[match] for match in piece.findall(name))
        size = len(packed)
        blob += bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
        blob += packed
    count_size = word if form.wide else 4

    def addresses() -> None:
        values = [address for address, _, _ in symbols]
        base = next(value for (value, letter, _) in symbols if letter != "A")
        if form.encoding == ABSOLUTE:
            table("addresses", b"".join(number(value, word) for value in values))
            return
        if form.encoding == BASE:
            stored = [value - base for value in values]
        elif form.encoding == PERCPU:
            stored = [value if letter == "A" else base - value - 1 for value, letter, _ in symbols]
        else:
            start = address + len(out.data) + -len(out.data) % alignment
            stored = [value - (start + 4 * index) for index, value in enumerate(values)]
        table("offsets", b"".join(number(value, 4) for value in stored))
        if form.encoding != PC:
            table("relative_base", number(base, word))

    def sequence() -> None:
        if form.sequence:
            by_name = sorted(range(len(names)), key=lambda index: names[index][1:])
            table("seqs_of_names", b"".join(index.to_bytes(3, "big") for index in by_name))

    if form.order == "before":
        addresses()
    table("num_syms", number(len(symbols), count_size))
    table("names", bytes(blob))
    table("markers", b"".join(number(marker, count_size) for marker in markers))
    if form.order == "before":
        sequence()
    table("token_table", b"".join(token + b"\0" for token in tokens))
    offsets = [sum(len(token) + 1 for token in tokens[:code]) for code in range(256)]
    table("token_index", b"".join(number(offset, 2) for offset in offsets))
    if form.order == "after":
        addresses()
        sequence()
    return out


def image(
    form: Form, symbols: Sequence[tuple[int, str, str]], text: int, tables_at: int = 0x4000
) -> tuple[bytes, Written]:
    """The bytes of an image at `text` whose symbols these are, with noise around the tables."""
    chance = random.Random(7)
    written = write(symbols, form, text + tables_at)
    return chance.randbytes(tables_at - 64) + b"\xcc" * 64 + bytes(written.data) + b"\xcc" * 64 + chance.randbytes(
        0x1000
    ), written
