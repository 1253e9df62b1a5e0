"""Where the checkout has its things."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
DOCS = ROOT / "docs"
VM_IMAGES = ROOT / "vm-images"
LINKER_DATA = TESTS / "linker_kernel" / "data"
