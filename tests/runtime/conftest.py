"""Makes `import vmimages` and the helpers beside this file importable."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE))
sys.path.append(str(_HERE.parents[1] / "vm-images"))
