"""The kernel's types from its BTF, for drgn, which cannot read BTF itself (up to 0.3).

drgn asks a type finder for a name, and makes the members of a structure only when they are needed, so a question only
makes the types that it touches. Nothing is invented beyond BTF: there are no files and lines, no macros, no variables
except per-CPU ones (`types.variables` has the types of others), and `[]` is an array without elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import drgn
from drgn import FindObjectFlags, Qualifiers, TypeEnumerator, TypeKind, TypeMember, TypeParameter

from kplug.arch.registry import named
from kplug.errors import InputError
from kplug.image import btf
from kplug.image.btf import Btf, BtfType, Member
from kplug.runtime.types.variables import variable_types

# The kernel follows chains of qualifiers, pointers and arrays for 32 steps (MAX_RESOLVE_DEPTH).
_MAX_DEPTH = 64

_QUALIFIERS = {btf.CONST: Qualifiers.CONST, btf.VOLATILE: Qualifiers.VOLATILE, btf.RESTRICT: Qualifiers.RESTRICT}
_TAGS = (btf.TYPE_TAG, btf.DECL_TAG)
_KINDS = {
    TypeKind.INT: (btf.INT,),
    TypeKind.BOOL: (btf.INT,),
    TypeKind.FLOAT: (btf.FLOAT,),
    TypeKind.STRUCT: (btf.STRUCT,),
    TypeKind.UNION: (btf.UNION,),
    TypeKind.ENUM: (btf.ENUM, btf.ENUM64),
    TypeKind.TYPEDEF: (btf.TYPEDEF,),
}
# No number in C has more bytes (__int128).
_NUMBERS = (btf.INT, btf.FLOAT, btf.ENUM, btf.ENUM64)
_MAX_NUMBER_BYTES = 16
# C's names of the integers, by size and sign.
_INTEGER_NAMES = {1: "char", 2: "short", 4: "int", 8: "long", 16: "__int128"}

AddressOf = Callable[[str], "int | None"]


class BtfTypes:
    """Makes the types, constants, functions and variables of a kernel for drgn.

    `address_of` gives the address of a variable or function by its name; None if there is none, or several.
    """

    def __init__(self, prog: drgn.Program, types: Btf, address_of: AddressOf, machine: str) -> None:
        self.btf = types
        self._prog = prog
        self._address_of = address_of
        self._machine = machine
        self._declared = variable_types(machine)
        self._made: dict[int, drgn.Type] = {}
        self._depth = 0
        self._found: dict[tuple[str, tuple[TypeKind, ...]], drgn.Type | None] = {}

    # -- drgn's look-ups -----------------------------------------------------------------------------------------------

    def find_type(self, prog: drgn.Program, kinds: Any, name: str, filename: str | None) -> drgn.Type | None:
        """A type by its name; None if there is none. BTF has no files."""
        if filename is not None:
            return None
        wanted = tuple(kind for kind in _KINDS if kind in kinds)
        key = name, wanted
        if key not in self._found:
            self._found[key] = _or_lookup_error(lambda: self._named(name, wanted))
        return self._found[key]

    def find_object(
        self, prog: drgn.Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> drgn.Object | None:
        """A constant, function or variable by its name; None if there is none."""
        if filename is not None:
            return None
        return _or_lookup_error(lambda: self._object(name, flags))

    def _named(self, name: str, kinds: tuple[TypeKind, ...]) -> drgn.Type | None:
        for kind in kinds:
            numbers = self.btf.named(name, _KINDS[kind])
            if kind in (TypeKind.INT, TypeKind.BOOL):
                numbers = [n for n in numbers if self.btf.integer(self.btf.type(n)).boolean == (kind == TypeKind.BOOL)]
            if numbers:
                # Several parts of the kernel may have different types of one name. Then it is not known which is meant.
                return self.type(numbers[0]) if self.btf.alike(numbers) else None
        return None

    def _object(self, name: str, flags: FindObjectFlags) -> drgn.Object | None:
        if flags & FindObjectFlags.VARIABLE:
            found = self._variable(name)
            if found is not None:
                return found
        if flags & FindObjectFlags.FUNCTION:
            found = self._function(name)
            if found is not None:
                return found
        return self._constant(name) if flags & FindObjectFlags.CONSTANT else None

    def _variable(self, name: str) -> drgn.Object | None:
        numbers = self.btf.named(name, (btf.VAR,))
        if not numbers and name not in self._declared:
            return None
        address = self._address_of(name)
        if address is None or len(numbers) > 1:
            return None
        if numbers:
            return drgn.Object(self._prog, self.type(self.btf.type(numbers[0]).number), address=address)
        try:
            kind = self._prog.type(self._declared[name])
        except LookupError:
            return None
        return drgn.Object(self._prog, kind, address=address)

    def _function(self, name: str) -> drgn.Object | None:
        numbers = self.btf.named(name, (btf.FUNC,))
        address = self._address_of(name) if len(numbers) == 1 else None
        if address is None:
            return None
        return drgn.Object(self._prog, self.type(self.btf.type(numbers[0]).number), address=address)

    def _constant(self, name: str) -> drgn.Object | None:
        """An enumerator; None if several enums have one of that name with different values."""
        numbers = self.btf.enums_with(name)
        values = {dict(self.btf.enumerators(self.btf.type(number)))[name] for number in numbers}
        if len(values) != 1:
            return None
        return drgn.Object(self._prog, self.type(numbers[0]), value=values.pop())

    # -- making types --------------------------------------------------------------------------------------------------

    def type(self, number: int) -> drgn.Type:
        """The type of that number. InputError if it cannot be made."""
        made = self._made.get(number)
        if made is not None:
            return made
        if self._depth >= _MAX_DEPTH:
            raise InputError(f"{self.btf.where}: type {number} of the BTF is made of itself, or of too many others")
        self._depth += 1
        try:
            made = self._made[number] = self._make(self.btf.type(number))
        except (ValueError, OverflowError, TypeError) as error:  # drgn rejects what C does not have
            raise InputError(f"{self.btf.where}: type {number} of the BTF: {error}") from None
        finally:
            self._depth -= 1
        return made

    def _make(self, entry: BtfType) -> drgn.Type:
        prog, kind = self._prog, entry.kind
        if kind in _NUMBERS and not 0 < entry.number <= _MAX_NUMBER_BYTES:
            raise InputError(f"{self.btf.where}: type {entry.id} of the BTF is a number of {entry.number} bytes")
        if kind == btf.VOID:
            return prog.void_type()
        if kind == btf.PTR:
            return prog.pointer_type(self.type(entry.number))
        if kind in _QUALIFIERS:
            of = self.type(entry.number)
            return of.qualified(of.qualifiers | _QUALIFIERS[kind])
        if kind in _TAGS:
            return self.type(entry.number)
        if kind == btf.TYPEDEF:
            return prog.typedef_type(entry.name, self.type(entry.number))
        if kind in (btf.STRUCT, btf.UNION):
            make = prog.struct_type if kind == btf.STRUCT else prog.union_type
            return make(entry.name or None, entry.number, [self._member(m) for m in self.btf.members(entry)])
        if kind == btf.ARRAY:
            element, count = self.btf.array(entry)
            return prog.array_type(self.type(element), count)
        if kind == btf.INT:
            return self._integer(entry)
        if kind in (btf.ENUM, btf.ENUM64):
            return self._enum(entry)
        if kind == btf.FLOAT:
            return prog.float_type(entry.name, entry.number)
        if kind == btf.FWD:
            return self._forward(entry)
        if kind == btf.FUNC_PROTO:
            return self._prototype(entry)
        raise InputError(f"{self.btf.where}: type {entry.id} of the BTF is a {btf.KIND_NAMES[kind]}, not a C type")

    def _member(self, member: Member) -> TypeMember:
        number, bits, types = member.type, member.bit_size, ref(self)

        def make() -> Any:
            found = _alive(types)
            kind = found.type(number)
            return kind if not bits else drgn.Object(found._prog, kind, absence_reason=_ABSENT, bit_field_size=bits)

        return TypeMember(lambda: _or_lookup_error(make), member.name or None, member.bit_offset)

    def _integer(self, entry: BtfType) -> drgn.Type:
        how = self.btf.integer(entry)
        if how.boolean:
            return self._prog.bool_type(entry.name, entry.number)
        return self._prog.int_type(entry.name, entry.number, self._is_signed(entry.name, how.signed))

    def _is_signed(self, name: str, said: bool) -> bool:
        """Whether an integer is signed. Older paholes (of the time of 5.10) lost this for types of one byte: if
        `signed char` is not signed, `char` is as in the architecture's ABI (the kernel's own flag came with 6.2).
        """
        if said or name not in ("char", "signed char"):
            return said
        if any(self.btf.integer(self.btf.type(n)).signed for n in self.btf.named("signed char", (btf.INT,))):
            return said
        return name == "signed char" or bool(named(self._machine).char_signed)

    def _enum(self, entry: BtfType) -> drgn.Type:
        enumerators = list(self.btf.enumerators(entry))
        if not enumerators:
            return self._prog.enum_type(entry.name or None)
        signed = self.btf.is_signed(entry)
        name = _INTEGER_NAMES.get(entry.number, f"{8 * entry.number}-bit integer")
        if not signed or entry.number == 1:
            name = f"{'signed' if signed else 'unsigned'} {name}"
        compatible = self._prog.int_type(name, entry.number, signed)
        return self._prog.enum_type(entry.name or None, compatible, [TypeEnumerator(*pair) for pair in enumerators])

    def _forward(self, entry: BtfType) -> drgn.Type:
        """A structure that is only declared where it is used: the one with its name, if there is only one."""
        kind = btf.UNION if entry.flag else btf.STRUCT
        complete = self.btf.named(entry.name, (kind,))
        if len(complete) == 1:
            return self.type(complete[0])
        return self._prog.union_type(entry.name) if entry.flag else self._prog.struct_type(entry.name)

    def _prototype(self, entry: BtfType) -> drgn.Type:
        parameters = list(self.btf.parameters(entry))
        variadic = bool(parameters) and parameters[-1] == ("", 0)
        if variadic:
            parameters.pop()
        made = [self._parameter(name, number) for name, number in parameters]
        return self._prog.function_type(self.type(entry.number), made, variadic)

    def _parameter(self, name: str, number: int) -> TypeParameter:
        types = ref(self)
        return TypeParameter(lambda: _or_lookup_error(lambda: _alive(types).type(number)), name or None)


_ABSENT = drgn.AbsenceReason.OTHER


def _alive(types: ref[BtfTypes]) -> BtfTypes:
    """The finders object for making a type's members. The Program keeps the type, which must not keep the Program."""
    found = types()
    if found is None:
        raise InputError("the session that this type is from has ended")
    return found


def _or_lookup_error(make: Callable[[], Any]) -> Any:
    """What `make` returns. LookupError, as for a missing type, if the BTF is broken, or not C for drgn."""
    try:
        return make()
    except (InputError, ValueError, OverflowError, TypeError) as error:
        raise LookupError(str(error)) from None
