"""Makes `import vmimages`, the oracles and the helpers of the other tests importable."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
for _folder in (str(_TESTS), str(_TESTS.parent), str(_TESTS.parent / "vm-images")):
    if _folder not in sys.path:
        sys.path.append(_folder)
