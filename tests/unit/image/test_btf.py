"""BTF by the format's own description (Documentation/bpf/btf.rst): built here, in both byte orders, right and broken.

That real BTF is read as DWARF says is `tests/runtime/opening/test_without_vmlinux.py`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import pytest

from kplug.errors import InputError
from kplug.image import btf
from kplug.image.btf import Btf, Member


class Builder:
    """Types one behind the other, each given by its words; names become offsets."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.strings = b"\0"
        self.types = b""
        self.count = 1

    def name(self, text: str) -> int:
        if not text:
            return 0
        position = self.strings.find(b"\0" + text.encode() + b"\0")
        if position < 0:
            position = len(self.strings) - 1
            self.strings += text.encode() + b"\0"
        return position + 1

    def add(
        self, kind: int, name: str, third: int, extra: Sequence[int] = (), vlen: int = 0, flag: bool = False
    ) -> int:
        info = int(flag) << 31 | kind << 24 | vlen
        self.types += struct.pack(f"{self.order}{3 + len(extra)}I", self.name(name), info, third, *extra)
        self.count += 1
        return self.count - 1

    def data(self, **lies: int) -> bytes:
        header = {
            "magic": 0xEB9F,
            "version": 1,
            "flags": 0,
            "length": 24,
            "type_at": 0,
            "type_bytes": len(self.types),
            "string_at": len(self.types),
            "string_bytes": len(self.strings),
            **lies,
        }
        return struct.pack(self.order + "HBBIIIII", *header.values()) + self.types + self.strings


def example(order: str = "<") -> Builder:
    made = Builder(order)
    number = made.add(btf.INT, "int", 4, [1 << 24 | 32])
    made.add(btf.INT, "_Bool", 1, [4 << 24 | 8])
    pointer = made.add(btf.PTR, "", 4)  # to the struct behind it
    members = [made.name("a"), number, 0, made.name("bits"), number, 3 << 24 | 32, made.name("next"), pointer, 64]
    made.add(btf.STRUCT, "node", 16, members, vlen=3, flag=True)
    made.add(btf.ENUM, "color", 4, [made.name("RED"), 0, made.name("BLUE"), 0xFFFFFFFF], vlen=2, flag=True)
    made.add(btf.ENUM64, "big", 8, [made.name("HUGE"), 1, 2], vlen=1)
    made.add(btf.ARRAY, "", 0, [number, number, 7])
    made.add(btf.TYPEDEF, "node_t", 4)
    made.add(btf.FUNC_PROTO, "", number, [made.name("x"), number, 0, 0], vlen=2)
    made.add(btf.FUNC, "run", 9)
    made.add(btf.VAR, "counter", number, [1])
    made.add(btf.DATASEC, ".data..percpu", 64, [11, 8, 4], vlen=1)
    made.add(btf.FLOAT, "double", 8)
    made.add(btf.FWD, "far", 0, flag=True)
    made.add(btf.DECL_TAG, "tag", 4, [0xFFFFFFFF])
    made.add(btf.TYPE_TAG, "user", 4)
    return made


@pytest.fixture(params=["<", ">"], ids=["little-endian", "big-endian"])
def types(request: pytest.FixtureRequest) -> Btf:
    return Btf(example(request.param).data(), "example")


class TestRight:
    def test_types_by_name(self, types: Btf) -> None:
        assert types.count == 17
        assert types.named("node", (btf.STRUCT,)) == [4]
        assert types.named("node", (btf.UNION,)) == []
        assert types.named("ode", (btf.STRUCT,)) == []  # the tail of a name is none
        assert types.type(types.named("node_t", (btf.TYPEDEF,))[0]).number == 4

    def test_members_and_bit_fields(self, types: Btf) -> None:
        node = types.type(4)
        assert node.number == 16
        assert list(types.members(node)) == [Member("a", 1, 0, 0), Member("bits", 1, 32, 3), Member("next", 3, 64, 0)]

    def test_enumerators(self, types: Btf) -> None:
        assert list(types.enumerators(types.type(5))) == [("RED", 0), ("BLUE", -1)]
        assert list(types.enumerators(types.type(6))) == [("HUGE", 1 | 2 << 32)]
        assert types.enums_with("BLUE") == [5]
        assert types.enums_with("node") == []

    def test_integers_arrays_and_functions(self, types: Btf) -> None:
        assert types.integer(types.type(1))[:3] == (True, False, False)
        assert types.integer(types.type(2)).boolean
        assert types.array(types.type(7)) == (1, 7)
        assert list(types.parameters(types.type(9))) == [("x", 1), ("", 0)]

    def test_split_btf_goes_on_from_its_base(self, types: Btf) -> None:
        order = "<" if types.byteorder == "little" else ">"
        own = Builder(order)
        own.strings = b"extra\0"
        first = types.strings_end
        own.types = struct.pack(f"{order}6I", first, btf.STRUCT << 24 | 1, 4, _offset(types, "a"), 1, 0)
        split = Btf(own.data(), "module", types)
        assert split.named("extra", (btf.STRUCT,)) == [17]
        assert [member.name for member in split.members(split.type(17))] == ["a"]
        assert split.named("node", (btf.STRUCT,)) == [4]
        assert split.enums_with("RED") == [5]


def _offset(types: Btf, name: str) -> int:
    return next(types._name_offsets(name))


class TestBroken:
    """One line that names what is broken; nothing is read outside the bytes."""

    @pytest.mark.parametrize(
        ("lies", "words"),
        [
            ({"magic": 0x1234}, "not BTF"),
            ({"version": 9}, "BTF of version 9, which kplug does not know"),
            ({"length": 8}, "broken BTF header"),
            ({"length": 1 << 31}, "the types of the BTF lie outside it"),
            ({"type_bytes": 1 << 31}, "the types of the BTF lie outside it"),
            ({"type_at": 0xFFFFFFFC}, "the types of the BTF lie outside it"),
            ({"type_at": 2}, "broken BTF header"),
            ({"string_bytes": 1 << 31}, "the strings of the BTF lie outside it"),
            ({"string_bytes": 3}, "the strings of the BTF are not terminated"),
            ({"string_bytes": 0}, "the strings of the BTF are not terminated"),
            ({"type_bytes": 8}, "the last type of the BTF is truncated"),
        ],
    )
    def test_headers(self, lies: dict[str, int], words: str) -> None:
        with pytest.raises(InputError) as raised:
            Btf(example().data(**lies), "example")
        assert str(raised.value) == f"example: {words}"

    def test_too_much(self) -> None:
        with pytest.raises(InputError, match="bytes of BTF; no kernel has that many"):
            Btf(b"\x9f\xeb" + bytes(btf.MAX_BYTES), "example")

    def test_an_unknown_kind(self) -> None:
        made = example()
        made.add(31, "future", 4)
        with pytest.raises(InputError, match=r"^example: a type of the unknown kind 31$"):
            Btf(made.data(), "example")

    def test_a_count_that_reaches_beyond_the_end(self) -> None:
        made = Builder()
        made.add(btf.STRUCT, "long", 4, vlen=0xFFFF)
        with pytest.raises(InputError, match="last type of the BTF is truncated"):
            Btf(made.data(), "example")

    def test_types_and_names_that_are_not_there(self) -> None:
        made = Builder()
        made.add(btf.PTR, "", 99)
        made.types += struct.pack("<3I", 0x5555, btf.FWD << 24, 0)
        types = Btf(made.data(), "example")
        with pytest.raises(InputError, match="there is no type 99 in the BTF"):
            types.type(types.type(1).number)
        with pytest.raises(InputError, match="there is no name at 0x5555"):
            types.type(2)

    def test_a_name_without_end(self) -> None:
        made = Builder()
        made.add(btf.FWD, "x" * 5000, 0)
        with pytest.raises(InputError, match="there is no name at"):
            Btf(made.data(), "example").type(1)

    def test_another_kind_than_asked_for(self, types: Btf) -> None:
        with pytest.raises(InputError, match="type 1 of the BTF is a INT"):
            list(types.members(types.type(1)))

    def test_fuzzed(self) -> None:
        """Kept seeds: whatever is changed, it is refused or read."""
        said: list[str] = []
        for seed in range(3000):
            types = fuzzed(seed, said)
            if types is not None:
                for number in range(types.count):
                    _read(types, number, said)
                types.named("node", (btf.STRUCT,)), types.enums_with("RED")
        assert len(said) > 1000
        assert not any("\n" in line for line in said)


def fuzzed(seed: int, said: list[str]) -> Btf | None:
    """The example with a few bytes changed, and sometimes cut; None, and what was said, if it is refused."""
    chance, data = random.Random(seed), bytearray(example().data())
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data))
        data[at] = chance.choice((0, 0xFF, 0x7F, chance.randrange(256), data[at] ^ 1 << chance.randrange(8)))
    length = chance.choice((len(data), len(data), chance.randrange(len(data))))
    try:
        return Btf(bytes(data[:length]), "fuzzed")
    except InputError as error:
        said.append(str(error))
        return None


def _read(types: Btf, number: int, said: list[str]) -> None:
    try:
        entry = types.type(number)
        reader = {
            btf.INT: types.integer,
            btf.ARRAY: types.array,
            btf.STRUCT: types.members,
            btf.UNION: types.members,
            btf.ENUM: types.enumerators,
            btf.ENUM64: types.enumerators,
            btf.FUNC_PROTO: types.parameters,
        }.get(entry.kind)
        if reader is not None:
            tuple(reader(entry))  # type: ignore[operator]
    except InputError as error:
        said.append(str(error))


class TestForDrgn:
    """The types that drgn is given of broken BTF: what goes round in circles is refused, not followed."""

    @pytest.fixture
    def made(self) -> Builder:
        pytest.importorskip("drgn")
        return Builder()

    def _finder(self, made: Builder) -> tuple[object, object]:
        import drgn

        from kplug.runtime.types.btf import BtfTypes

        prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        found = BtfTypes(prog, Btf(made.data(), "example"), lambda name: None, "x86_64")
        prog.register_type_finder("btf", found.find_type, enable_index=-1)
        return prog, found

    @pytest.mark.parametrize("kind", [btf.PTR, btf.TYPEDEF, btf.CONST, btf.TYPE_TAG])
    def test_a_type_that_is_made_of_itself(self, made: Builder, kind: int) -> None:
        made.add(btf.TYPEDEF, "round", 2)
        made.add(kind, "round2" if kind in (btf.TYPEDEF, btf.TYPE_TAG) else "", 1)
        prog, _ = self._finder(made)
        with pytest.raises(LookupError, match="is made of itself, or of too many others"):
            prog.type("round")  # type: ignore[attr-defined]

    def test_an_array_of_itself(self, made: Builder) -> None:
        made.add(btf.TYPEDEF, "round", 2)
        made.add(btf.ARRAY, "", 0, [2, 2, 1 << 31])
        prog, _ = self._finder(made)
        with pytest.raises(LookupError, match="is made of itself"):
            prog.type("round")  # type: ignore[attr-defined]

    def test_a_structure_in_itself(self, made: Builder) -> None:
        import drgn

        made.add(btf.STRUCT, "inner", 8, [made.name("again"), 1, 0], vlen=1)
        prog, _ = self._finder(made)
        kind = prog.type("struct inner")  # type: ignore[attr-defined]
        assert drgn.sizeof(kind) == 8
        assert kind.members[0].type is not None

    def test_nonsense_is_not_found(self, made: Builder) -> None:
        made.add(btf.INT, "int", 77, [1 << 24 | 255])
        made.add(btf.TYPEDEF, "odd", 1)
        made.add(btf.TYPEDEF, "function", 4)
        made.add(btf.FUNC, "f", 1)
        prog, _ = self._finder(made)
        with pytest.raises(LookupError, match="type 4 of the BTF is a FUNC, not a C type"):
            prog.type("function")  # type: ignore[attr-defined]
        with pytest.raises(LookupError):
            prog.type("absent_t")  # type: ignore[attr-defined]

    def test_fuzzed(self, made: Builder) -> None:
        """Kept seeds: drgn makes the types, or is told that there are none."""
        import drgn

        from kplug.runtime.types.btf import BtfTypes

        refused = 0
        for seed in range(1000):
            types = fuzzed(seed, [])
            if types is None:
                continue
            prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
            found = BtfTypes(prog, types, lambda name: 0xFFFFFFFF81000000, "x86_64")
            prog.register_type_finder("btf", found.find_type, enable_index=-1)
            prog.register_object_finder("btf", found.find_object, enable_index=-1)
            for find, name in (
                (prog.type, "struct node"),
                (prog.type, "node_t"),
                (prog.type, "enum color"),
                (prog.type, "enum big"),
                (prog.type, "double"),
                (prog.function, "run"),
                (prog.variable, "counter"),
                (prog.constant, "BLUE"),
            ):
                try:
                    kind = find(name)
                    for member in getattr(kind, "members", None) or ():
                        str(member.type)
                except LookupError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                    refused += 1
        assert refused > 500
