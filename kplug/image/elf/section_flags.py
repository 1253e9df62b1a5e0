"""Bits of sh_flags (gABI, "Section Header"). Apart from their letters, which need the architectures' declarations."""

from __future__ import annotations

SHF_WRITE = 0x1
SHF_ALLOC = 0x2
SHF_EXECINSTR = 0x4
SHF_TLS = 0x400
SHF_COMPRESSED = 0x800
SHF_MASKOS = 0x0FF00000
SHF_MASKPROC = 0xF0000000
SHF_EXCLUDE = 0x80000000
SHF_GNU_RETAIN = 0x00200000
