"""Real arm64 kernels, booted under QEMU with KASLR on.

Two CPUs: `max` has 52-bit addresses (LPA2), pointer authentication and needs no page-table isolation; `cortex-a72` has
48 bits, which a kernel built for 52 runs with, no authentication, and is isolated.
"""

from __future__ import annotations

import pytest
from support.arm64_dumps import Machine

CPUS = {"max": None, "cortex-a72": "cortex-a72"}


@pytest.fixture(scope="package", params=list(CPUS))
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine.open("arm64-6.12", "kdump-zlib", modules=True, cpu=CPUS[request.param])
