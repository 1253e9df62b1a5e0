#!/usr/bin/env python3
"""Fetch, boot and dump the kernels that the tests and the demo run. `vm.py --help` has examples."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from vmimages.cli import main

if __name__ == "__main__":
    sys.exit(main())
