"""Peak memory of a process with all its children, counted the same way for every program.

The sum of the processes' proportional set sizes (PSS, from /proc/PID/smaps_rollup): a page that
the data loader's workers share with their parent counts once. Sampled ten times a second.
"""

import threading
from pathlib import Path


def tree(pid):
    """The process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                todo.extend(map(int, children.read_text().split()))
        except OSError:  # it has ended meanwhile
            pass
    return found


def pss(pid):
    """Bytes; 0 once the process has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Peak:
    """`with Peak(pid) as peak: ...`, then `peak.megabytes`."""

    def __init__(self, pid, period=0.1):
        self.pid, self.period, self.bytes = pid, period, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.stop.is_set():
            self.bytes = max(self.bytes, sum(map(pss, tree(self.pid))))
            self.stop.wait(self.period)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    @property
    def megabytes(self):
        return round(self.bytes / 1e6, 1)
