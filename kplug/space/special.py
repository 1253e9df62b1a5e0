"""Values that are not addresses but mean something: NULL, error pointers, poison, non-canonical ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from kplug.arch import registry
from kplug.arch.types.memory_map import IMAGE_MAPPING, KERNEL, NON_CANONICAL, TOP, USER, AddressSpace
from kplug.arch.types.record import Architecture
from kplug.arch.types.special_values import Poison
from kplug.arch.types.word import BIG, WIDEST_BITS, WIDEST_MASK, WordFormat, byte_order, signed
from kplug.frozen import Frozen, replace
from kplug.space import errno_table, poison

NULL = "null"
ERRPTR = "errptr"
POISON = "poison"
NON_CANONICAL_VALUE = "non-canonical"
USER_ADDRESS = "user"


class Special(Frozen):
    """One reading of a value.

    `base` is the value that the offset is measured from (offset = address - base). `guess`: other causes are possible.
    `meant` is the address that was meant according to this reading, if it is another one. `versions` and `source` say
    which kernels have the value and where it is defined; "" where that does not apply.
    """

    what: str
    name: str
    meaning: str
    base: int | None = None
    guess: bool = False
    meant: int | None = None
    versions: str = ""
    source: str = ""


def specials(
    address: int, machine: str, space: AddressSpace | None, word: WordFormat | None = None
) -> tuple[Special, ...]:
    """Every reading of `address`, the most specific first; () for an ordinary kernel address.

    `word`: how the kernel has its words; as the machine's usually are, if it is not given.
    """
    architecture = registry.named(machine)
    word = word or architecture.word()
    if not 0 <= address < TOP:
        raise ValueError(f"not a 64-bit address: {address:#x}")
    kind = space.area_at(address).kind if space is not None and space.holds(address) else None
    # In a kernel with 32 bits, or without a half of its own, memory may be where a special value is.
    if (
        kind == KERNEL
        and word.is_only_kernel(address)
        and address < TOP - _LAST_VALUES
        and address not in _SIGN_EXTENDED
    ):
        return ()
    found = [*_error_pointers(address, architecture), *_null(address), *_poisons(address, architecture, word)]
    explained = bool(found) and not all(special.guess for special in found)
    if kind == NON_CANONICAL and space is not None:
        shadow = list(_kasan_shadow(address, architecture, space))
        plain = _non_canonical(address, space)
        if explained:  # a value that explains itself needs no guesses
            found += [*shadow, plain]
        else:
            # A kernel that is known to sign its return addresses has more of those than of tags.
            signs = architecture.signed_pointers and space.facts.kernel_pac_mask and address >> 55 & 1
            readings = [*(_authenticated(address, space) if signs else ()), *_tagged(address, architecture, space)]
            found += [*shadow, *readings, plain, *_guesses(address, architecture, space, bool(readings))]
    elif kind == USER and space is not None and address >= _NULL_REACH:
        found += _user(address, space)
    return tuple(found)


# Kernel addresses below the last ones are not special values, except 32-bit fills that were sign extended.
_LAST_VALUES = 0x10000
_NULL_REACH = 0x1000  # a page: members of any usual structure
_MMAP_MIN = 0x10000  # the usual vm.mmap_min_addr: nothing is mapped below


def _error_pointers(address: int, architecture: Architecture) -> Iterator[Special]:
    code = (1 << architecture.bits) - address
    if 0 < code <= errno_table.MAX_ERRNO:
        name = errno_table.NAMES.get(code)
        if name is None:
            meaning = f"In the range of error pointers, but no error has the number {code}."
            yield Special(ERRPTR, f"ERR_PTR(-{code})", meaning, address, guess=True)
        else:
            internal = errno_table.INTERNAL.get(code)
            more = f": {internal}" if internal else ""
            meaning = f"An error pointer: the error -{name} ({code}) where a pointer was expected{more}."
            yield Special(ERRPTR, f"ERR_PTR(-{name})", meaning, address, source="include/linux/err.h")
        if code % 8 == 0:
            meaning = f"Or container_of() of a NULL pointer: the member is {code:#x} bytes into its structure."
            yield Special(NULL, f"NULL-{code:#x}", meaning, 0, guess=True)
    code = (1 << 32) - address
    if architecture.bits == 64 and 0 < code <= errno_table.MAX_ERRNO and code in errno_table.NAMES:
        name = errno_table.NAMES[code]
        meaning = f"The error -{name} ({code}) as a 32-bit number: a negative int taken for a pointer."
        yield Special(ERRPTR, f"(u32)-{name}", meaning, address, guess=True)


def _null(address: int) -> Iterator[Special]:
    if address == 0:
        yield Special(NULL, "NULL", "The null pointer.", 0)
    elif address < _NULL_REACH:
        meaning = f"A member at offset {address:#x} of a structure, through a NULL pointer."
        yield Special(NULL, f"NULL+{address:#x}", meaning, 0)
    elif address < _MMAP_MIN:
        meaning = f"A member at offset {address:#x} of a large structure or array, through a NULL pointer."
        yield Special(NULL, f"NULL+{address:#x}", meaning, 0, guess=True)
    if address == 0x10:
        meaning = "What kmalloc(0) returns: not NULL, and not to be used."
        yield Special(NULL, "ZERO_SIZE_PTR", meaning, 0x10, source="include/linux/slab.h")


def _poisons(address: int, architecture: Architecture, word: WordFormat) -> Iterator[Special]:
    if address > word.mask:
        return
    yield from _pointer_poisons(address, architecture)
    for row in (*_values(word.bits), *_free_ends(word.bits, word.little_endian)):
        offset = address - row.value
        if 0 <= offset < poison.VALUE_REACH:
            yield _poison(row, row.value, offset)
    yield from _fills(address, architecture)
    low, high = address & 0xFFFFFFFF, address >> 32
    for row in poison.MAGICS:
        if architecture.linear_map == address & -(1 << 32) == row.value << 32 or architecture.linear_map == address:
            continue  # where memory begins is more likely meant
        if low == row.value and not high:
            yield _poison(row, row.value, 0)
        elif high == row.value:
            # The magic follows 32 bits of lock.
            yield _poison(row, row.value << 32, low, " in the upper half", guess=low != 0)


@cache
def _values(bits: int) -> tuple[Poison, ...]:
    """The rows of `poison.VALUES` on a machine of so many bits: of small negative numbers, where they are fewer."""
    mask = (1 << bits) - 1
    return tuple(
        replace(row, value=row.value & mask)
        for row in poison.VALUES
        if signed(row.value & mask, mask) == signed(row.value) or bits == WIDEST_BITS
    )


@cache
def _free_ends(bits: int, little_endian: bool) -> tuple[Poison, ...]:
    """The last word of a freed slab object, as a number and, where that is another one, in the order of a hex dump."""
    size, row = bits // 8, poison.FREE_END
    data = bytes([poison.FREE_BYTE] * (size - 1) + [row.value])
    number = replace(row, value=int.from_bytes(data, byte_order(little_endian)), meaning=row.meaning.format(size))
    if not little_endian:
        return (number,)
    shown = replace(number, value=int.from_bytes(data, BIG), meaning=number.meaning + poison.HEX_DUMP_ORDER, guess=True)
    return number, shown


_POINTER_REACH = 0x1000
_CLOSE = 0x400


def _pointer_poisons(address: int, architecture: Architecture) -> Iterator[Special]:
    """The readings of `address` as a pointer that was poisoned."""
    for delta in architecture.poison_deltas:
        if delta:
            yield from _beyond(delta, address)
            continue
        for row in poison.POINTERS:  # what is near is near NULL
            if row.value == address and row.name in _CONTAINED:
                yield _poison(row, address, 0, guess=True)


def _beyond(delta: int, address: int) -> Iterator[Special]:
    """The pointer poison itself; else the one that `address` is probably a member or the container of."""
    offsets = [(address - delta - row.value, row) for row in poison.POINTERS]
    exact = [row for offset, row in offsets if offset == 0]
    if exact:
        for row in exact:
            yield _poison(row, address, 0)
        return
    near = [
        (offset % 8 != 0, abs(offset), offset, index)
        for index, (offset, row) in enumerate(offsets)
        if 0 < offset < _POINTER_REACH or (row.name in _CONTAINED and -_POINTER_REACH < offset < 0)
    ]
    if near:
        _, distance, offset, index = min(near)
        row = offsets[index][1]
        yield _poison(row, delta + row.value, offset, guess=offset % 8 != 0 or distance > _CLOSE)


_CONTAINED = ("LIST_POISON1", "LIST_POISON2")  # container_of() is what one does with a list entry
_FILL_REACH = 0x4000
_REPEAT_4 = 0x01010101
_SIGN = WIDEST_MASK & -(1 << 32)
_SIGN_EXTENDED = frozenset(_SIGN | row.value * _REPEAT_4 for row in poison.FILLS if row.value >> 7)


def _fills(address: int, architecture: Architecture) -> Iterator[Special]:
    narrow = architecture.bits < WIDEST_BITS
    for row in (*poison.FILLS, *architecture.fills):
        value = int.from_bytes(bytes([row.value]) * architecture.word_size, BIG)
        offset = address - value
        if -_FILL_REACH < offset < _FILL_REACH:
            # A 32-bit kernel's memory may be there.
            yield _poison(row, value, offset, guess=narrow and value >= (architecture.linear_map or 0))
        if narrow:
            continue
        half = row.value * _REPEAT_4
        if address == half:
            yield _poison(row, half, 0, " (32 bits)", guess=True)
        elif address == _SIGN | half and address in _SIGN_EXTENDED:
            yield _poison(row, address, 0, " (32 bits, sign extended)", guess=True)
        elif address >> 32 == half and not -_FILL_REACH < offset < _FILL_REACH:
            yield _poison(row, half << 32, address & 0xFFFFFFFF, " in the upper half", guess=True)


def _poison(row: Poison, base: int, offset: int, note: str = "", guess: bool = False) -> Special:
    suffix = f"{'+' if offset > 0 else '-'}{abs(offset):#x}" if offset and not note else ""
    meaning = row.meaning[0].upper() + row.meaning[1:]
    return Special(
        POISON,
        f"{row.name}{note}{suffix}",
        f"{meaning}.",
        base,
        row.guess or guess,
        versions=row.versions,
        source=row.source,
    )


def _non_canonical(address: int, space: AddressSpace) -> Special:
    area = space.area_at(address)
    condition, then = area.details.get("if"), area.details.get("then")
    meaning = f"No address at all in this layout ({space.description}): every access faults."
    if condition and then:
        meaning = f"No address in this layout ({space.description}); if {condition}, it is in: {then}."
    return Special(NON_CANONICAL_VALUE, "non-canonical", meaning, guess=bool(condition))


def _kasan_shadow(address: int, architecture: Architecture, space: AddressSpace) -> Iterator[Special]:
    """An access by KASAN's own check: to the shadow of a bad address."""
    if space.facts.kasan_shadow is False:
        return
    declared = architecture.kasan_shadow_offset
    offset = None if declared is None else declared(space.facts)
    if offset is None or not 0 <= address - offset < 1 << 61:
        return
    original = (address - offset) << 3
    reading = next(
        iter([*_null(original), *_pointer_poisons(original, architecture), *_fills(original, architecture)]), None
    )
    sure = original < _NULL_REACH
    if not sure and not (space.facts.kasan_shadow or reading is not None or space.is_user(original)):
        return
    name = f"{original:#x}" if reading is None else reading.name
    meaning = f"KASAN's shadow of {original:#x}-{original + 7:#x}: the access to that address is what is wrong."
    yield Special(
        NON_CANONICAL_VALUE, f"KASAN shadow of {name}", meaning, offset, not sure, original, source="mm/kasan/report.c"
    )


def _tagged(address: int, architecture: Architecture, space: AddressSpace) -> Iterator[Special]:
    """A tag in the top byte (arm64)."""
    if not architecture.top_byte_tags:
        return
    kernel = bool(address >> 55 & 1)
    tag_mask = 0xFF << 56
    untagged = address | tag_mask if kernel else address & ~tag_mask
    if space.area_at(untagged).kind == (KERNEL if kernel else USER):
        tag = address >> 56
        why = "KASAN or memory tagging" if kernel else "the top byte is ignored in user addresses"
        meaning = f"The address {untagged:#x} with the tag {tag:#04x} in its top byte ({why})."
        yield Special(NON_CANONICAL_VALUE, f"tag {tag:#04x}", meaning, guess=kernel, meant=untagged)


def _authenticated(address: int, space: AddressSpace) -> Iterator[Special]:
    """A pointer authentication code in the bits above the address (arm64)."""
    if space.facts.kernel_pac_mask == 0:
        return
    stripped = _sign_extend(address, space)
    if space.area_at(stripped).hole or stripped < _MMAP_MIN:
        return
    meaning = f"The address {stripped:#x} with a pointer authentication code, not yet checked or found wrong."
    yield Special(NON_CANONICAL_VALUE, "pointer authentication code", meaning, guess=True, meant=stripped)


def _sign_extend(address: int, space: AddressSpace) -> int:
    """The address with the bits above the virtual ones set as bit 55 is."""
    user_end = next(area.start for area in space.areas if area.kind == NON_CANONICAL)
    low = address & (user_end - 1)
    return low | (TOP - user_end) if address >> 55 & 1 else low


def _guesses(address: int, architecture: Architecture, space: AddressSpace, tagged: bool) -> Iterator[Special]:
    text = _text(address, architecture)
    if text is not None:
        meaning = f'The bytes in memory are the text "{text}": a string written over a pointer.'
        yield Special(NON_CANONICAL_VALUE, f'text "{text}"', meaning, guess=True)
    swapped = address >> 32 | (address & 0xFFFFFFFF) << 32
    if _plausible(swapped, space):
        meaning = f"With its 32-bit halves swapped it is {swapped:#x}, {space.area_at(swapped).name}."
        yield Special(NON_CANONICAL_VALUE, "swapped halves", meaning, guess=True, meant=swapped)
    if architecture.top_byte_tags or architecture.signed_pointers:
        # The upper bits are often tags and authentication codes. A code that differs from no code in one bit is rare.
        if not tagged:
            yield from _one_bit_flipped(address, space, 55)
            yield from _authenticated(address, space)
        return
    if address >> 47 == 1 and _plausible(address | 0xFFFF << 48, space):
        whole = address | 0xFFFF << 48
        meaning = f"With the lost upper 16 bits restored it is {whole:#x}, {space.area_at(whole).name}."
        yield Special(NON_CANONICAL_VALUE, "upper bits lost", meaning, guess=True, meant=whole)
    yield from _one_bit_flipped(address, space, architecture.bits - 1)


def _one_bit_flipped(address: int, space: AddressSpace, highest: int) -> Iterator[Special]:
    for bit in range(highest, 46, -1):
        flipped = address ^ 1 << bit
        if _plausible(flipped, space):
            meaning = f"With bit {bit} flipped it is {flipped:#x}, {space.area_at(flipped).name}."
            yield Special(NON_CANONICAL_VALUE, f"bit {bit} flipped", meaning, guess=True, meant=flipped)


def _text(address: int, architecture: Architecture) -> str | None:
    """The value as text in memory order, if it is all text."""
    characters = architecture.word().packed((address,)).rstrip(b"\0")
    if len(characters) < 6 or not all(0x20 <= byte < 0x7F for byte in characters):
        return None
    return characters.decode("ascii")


def _plausible(address: int, space: AddressSpace) -> bool:
    """Whether a pointer of the kernel can hold the address."""
    area = space.area_at(address)
    if area.kind != KERNEL or area.hole:
        return False
    image = space.facts.runtime_image
    if area.name == IMAGE_MAPPING and image is not None:
        return image[0] <= address < image[1]
    return True


def _user(address: int, space: AddressSpace) -> Iterator[Special]:
    area = space.area_at(address)
    if not area.hole:
        meaning = "In the half of the address space that each program has for itself."
        yield Special(USER_ADDRESS, "user address", meaning, guess="if" in area.details)
