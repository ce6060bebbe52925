"""report.md: what was measured, how, on what, and what was not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.bench.report.figures import headline, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.bench.report.figures import Table
    from userproxy.bench.report.record import Record

BUSY_LOAD = 0.5
"""A load above which the machine was not idle when the run began."""


def render(record: Record, base: str, plots: Sequence[tuple[str, str]], no_plots: str) -> str:
    """The report.

    Args:
        record: of the run.
        base: the name of the path that the others are compared with.
        plots: their titles and file names.
        no_plots: why there are none; empty if there are.
    """
    parts = ["# userproxy bench", _summary(record)]
    if main := headline(record, base):
        parts += ["## In short", _table(main)]
    parts.append("## Figures")
    parts.append(
        "Medians, in brackets the first and the third quartile, then the ratio to "
        f"`{base}`: the median of the ratios within each round."
    )
    for table in tables(record, base):
        parts += [f"### {table.title}", _table(table)]
    parts.append("## Plots")
    parts += [f"![{title}]({file})" for title, file in plots] or [f"There are none: {no_plots}."]
    parts += ["## What ran", _paths(record), "## What could not be measured", _missing(record)]
    parts += ["## How it was measured", _method(record)]
    return "\n\n".join(parts) + "\n"


def _summary(record: Record) -> str:
    machine = record.machine
    kind = "virtual machine" if machine.hypervisor else "machine"
    lines = [
        f"Begun {record.started}, took {record.seconds:,.0f} s.",
        "",
        f"- {machine.cpus} CPUs of a {kind}: {machine.cpu}; {machine.memory_gib:g} GiB",
        f"- Linux {machine.kernel}, {machine.system}, Python {machine.python}",
        f"- frequency governor: {machine.governor}; load when it began: {machine.load:.2f}",
    ]
    if machine.load > BUSY_LOAD:
        lines += [
            "",
            f"**The machine was not idle** (load {machine.load:.2f}): trust the ratios, not the figures.",
        ]
    return "\n".join(lines)


def _paths(record: Record) -> str:
    rows = ["| path | `--paths` | version | |", "|---|---|---|---|"]
    rows += [f"| {path.title} | `{path.name}` | {path.version} | {path.note} |" for path in record.paths]
    return "\n".join(rows)


def _missing(record: Record) -> str:
    lines = [f"- `{each.path}`, {each.what}: could not be measured: {each.reason}" for each in record.missing]
    return "\n".join(lines) or "Everything that was asked for was measured."


def _method(record: Record) -> str:
    settings = record.settings
    warm = f"after {settings.warmup} s of warm-up" if settings.warmup else "without a warm-up"
    rounds = "one round" if settings.rounds == 1 else f"{settings.rounds} rounds"
    return f"""\
- Each path has a lab of its own: a host, a client and two pods, wired alike, with the same addresses and the
  same Services. So no path pays for another one's rules. All are up during the whole run, but only one has
  traffic at a time.
- HAProxy and nginx stand behind a table with the hooks, priorities and lookups of userproxy's own. kube-proxy
  writes its own rules. The direct path has none.
- One thread or worker for each relay, except the original kube-proxy: its runtime uses every core. Client,
  pods and proxy share the machine's CPUs.
- Measured in {rounds}; in each, every workload goes over all paths, in an order at random, before the next
  begins. {settings.seconds} s a measurement, {warm}; the tracked connections are forgotten
  before each.
- Requests, latency and new connections: wrk with one thread, against nginx in both pods. wrk waits for each
  answer before it asks again, so its latencies are those at full load. Throughput: iperf3, to one pod.
- CPU: user and system time of the proxy's processes in /proc. What the kernel does in interrupts is nobody's,
  so paths without a process show none.
- Memory: how much a freshly started proxy's resident memory grows with {settings.held:,} open connections,
  each after one request. The kernel's own buffers are not in it.
- First answer: from connect() to the first byte of the answer, over Services chosen at random.
- A change: from adding a Service (a manifest written; for kube-proxy, a Service created through the API, its
  pods known before) until a connection to it is taken. Changes are far enough apart that no proxy's own limit
  on how often it writes rules is measured. Before each size the path starts afresh.
- Services of every kind: of ten, three have a cluster IP alone, one the internal policy Local, one affinity,
  one a node port, one an external IP; three are of a load balancer, with two IPs, with the external policy
  Local, with source ranges. First sync: from the start of the program until 200 of their addresses, chosen at
  random, take connections; userproxy reads a manifest, kube-proxy its API server, which has them all before.
  Resident memory: of all of its processes, after the changes; pages that two of them share count twice. What
  the kernel keeps for its rules is not in it."""


def _table(table: Table) -> str:
    rule = "|".join(["---"] + ["---:"] * (len(table.header) - 1))
    rows = ("| " + " | ".join(row) + " |" for row in table.rows)
    return "\n".join(["| " + " | ".join(table.header) + " |", f"|{rule}|", *rows])
