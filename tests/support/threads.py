"""The threads of a dump."""

from __future__ import annotations

import drgn
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_on_cpu

from kplug.runtime.drgn_target import DrgnTarget
from kplug.session import Session


def target_of(session: Session) -> DrgnTarget:
    assert isinstance(session.target, DrgnTarget)
    return session.target


def asleep(session: Session) -> list[drgn.Object]:
    return [task for task in for_each_task(target_of(session).kernel.prog) if not task_on_cpu(task)]
