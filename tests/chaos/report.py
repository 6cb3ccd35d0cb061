"""What a run says at its end: how long writes paused at each kind of fault, and what was written before, during and after."""

from bisect import bisect_left
from collections import defaultdict
from typing import NamedTuple

#: Upper ends of the bars of the histogram, in seconds.
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0)


class Measured(NamedTuple):
    """One fault and what it did to writes. Pauses in seconds, throughput in acknowledged records a second."""

    kind: str
    what: str
    #: How long it was left so, and how long the cluster then took until all replicas were in sync.
    held: float
    healing: float
    #: The longest time without an acknowledgement: by hand, looking for the new leader at once ...
    cluster_pause: float
    #: ... and as the slowest partition of any client library saw it.
    client_pause: float
    before: float
    during: float
    after: float


def longest_gap(times: list[float], begin: float, end: float) -> float:
    """The longest time between two acknowledgements that reaches into [begin, end]. `times` are in order."""
    first, last = bisect_left(times, begin), bisect_left(times, end)
    inside = [begin, *times[first:last], times[last] if last < len(times) else end]
    return max(later - earlier for earlier, later in zip(inside, inside[1:]))


def rate(times: list[float], begin: float, end: float) -> float:
    return (bisect_left(times, end) - bisect_left(times, begin)) / max(end - begin, 0.001)


def histogram(pauses: list[float]) -> str:
    """Each bar with its count, only as far as there are any."""
    counts = [0] * (len(BOUNDS) + 1)
    for pause in pauses:
        counts[bisect_left(BOUNDS, pause)] += 1
    lines, lower = [], 0.0
    used = [index for index, count in enumerate(counts) if count]
    for index in range(used[0] if used else 0, (used[-1] if used else -1) + 1):
        lower = BOUNDS[index - 1] if index else 0.0
        upper = f"{BOUNDS[index]:>5g}" if index < len(BOUNDS) else "    …"
        lines.append(f"    {lower:>5g} –{upper} s  {counts[index]:>4}  {'█' * min(60, counts[index])}")
    return "\n".join(lines)


def median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def text(measured: list[Measured]) -> str:
    by_kind = defaultdict(list)
    for fault in measured:
        by_kind[fault.kind].append(fault)
    lines = [
        "Pause of acknowledged writes at each fault, in seconds: the cluster's own (median, max), and what the slowest",
        "partition of any client library saw. Throughput in records a second: before, during the fault, after healing.",
        "",
        f"{'fault':<22}{'times':>6}{'held':>7}{'healing':>9}{'cluster':>16}{'clients':>16}{'records/s':>22}",
    ]
    for kind, faults in sorted(by_kind.items()):
        def column(name: str) -> list[float]:
            return [getattr(fault, name) for fault in faults]

        def both(name: str) -> str:
            return f"{median(column(name)):.2f} / {max(column(name)):.2f}"

        rates = " ".join(f"{median(column(name)):>6.0f}" for name in ("before", "during", "after"))
        lines.append(f"{kind:<22}{len(faults):>6}{median(column('held')):>7.1f}{median(column('healing')):>9.1f}"
                     f"{both('cluster_pause'):>16}{both('client_pause'):>16}{rates:>22}")
    for name, title in (("cluster_pause", "the cluster's own pause"), ("client_pause", "the clients' pause")):
        lines += ["", f"  {title}, over all {len(measured)} faults:", histogram([getattr(m, name) for m in measured])]
    return "\n".join(lines)
