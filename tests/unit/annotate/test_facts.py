"""What a log says of its kernel: release, build, KASLR offset; for each boot in it."""

from __future__ import annotations

from kplug.annotate.facts import Boot, boots, in_boots
from kplug.log.pieces import Kind, Piece

BANNER = b"[    0.000000] Linux version 6.1.0-57-amd64 (debian@debian.org) (gcc-12 (Debian) 12.2.0) #1 SMP Debian\n"
PANIC = b"[    9.000000] Kernel Offset: 0x8a00000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000)\n"
OOPS = b"CPU: 0 PID: 183 Comm: sh Tainted: G           OE      6.1.0-57-cloud-amd64 #1  Debian 6.1.192-3\n"


def of(*lines: bytes) -> list[Boot]:
    return boots([Piece(Kind.LINES, line) for line in lines])


def test_the_offset_at_the_end_counts_for_the_whole_boot() -> None:
    assert of(b"first\n", PANIC) == [Boot(0, 0x8A00000)]
    assert of(b"Kernel Offset: disabled\n") == [Boot(0, 0)]


def test_each_boot_has_its_own() -> None:
    second = BANNER + b"Kernel Offset: disabled\n"
    expected = [Boot(0, 0x8A00000), Boot(len(PANIC), 0, "6.1.0-57-amd64", "#1")]
    assert of(PANIC, second) == expected
    assert of(PANIC + second) == expected
    assert [part for part, _ in in_boots(PANIC + second, Boot())] == [PANIC, second]


def test_an_oops_names_its_kernel() -> None:
    assert of(OOPS) == [Boot(0, None, "6.1.0-57-cloud-amd64", "#1")]
    assert of(b"CPU: 1 PID: 1 Comm: a b Not tainted 5.10.0 #12-Ubuntu\n") == [Boot(0, None, "5.10.0", "#12-Ubuntu")]


def test_a_line_too_long_to_keep_has_its_length() -> None:
    log = [Piece(Kind.BEGIN, b"xx"), Piece(Kind.END, b"x\n"), Piece(Kind.LINES, BANNER)]
    assert [boot.start for boot in boots(log)] == [0, 4]
