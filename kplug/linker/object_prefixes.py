"""Prefixes that a build adds to every symbol of some objects.

objcopy --prefix-symbols does so for the hypervisor, early-boot and EFI stub objects of arm64, labels and markers
included (Makefiles of arch/arm64/kvm/hyp/nvhe, arch/arm64/kernel/pi, drivers/firmware/efi/libstub).
"""

from __future__ import annotations

OBJECT_PREFIXES = ("__kvm_nvhe_", "__pi_", "__efistub_")
