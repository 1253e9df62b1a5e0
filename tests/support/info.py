"""What `kplug info --json` told."""

from __future__ import annotations

import json
from typing import Any

from support.bounded_kplug import Answer


def facts_of(answer: Answer) -> dict[str, Any]:
    facts = [json.loads(line) for line in answer.out.splitlines()]
    [info] = [each for each in facts if each["schema"] == "kplug.info/1"]
    return dict(info)
