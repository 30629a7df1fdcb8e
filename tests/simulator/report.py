"""What happened in a simulation, counted, and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ollamad.scheduler.actions import Start
from simulator.launch import Launched
from simulator.machines import GIB, SECOND, Ledger, Machine

#: A model that is loaded again so soon after it went is a reload.
RELOAD = 60 * SECOND
#: The part of the free memory that a model may fill before it counts as tight.
TIGHT = 0.75


@dataclass(frozen=True)
class Served:
    """One request that is over. Nanoseconds; ``waited`` until it was granted, refused or left."""

    model: str
    arrived: int
    waited: int
    outcome: str
    error: str


@dataclass
class _Evicted:
    name: str
    reason: str
    at_limit: bool
    held: Launched | None


@dataclass
class Report:
    machine: Machine
    trace: str
    seed: int
    seconds: float
    served: list[Served] = field(default_factory=list)
    loads: Counter[str] = field(default_factory=Counter)
    failed_loads: int = 0
    out_of_memory: int = 0
    reloads: Counter[str] = field(default_factory=Counter)
    evictions: Counter[str] = field(default_factory=Counter)
    #: Descriptions of evictions that were not needed.
    needless: list[str] = field(default_factory=list)
    crashes: int = 0
    #: Parts of layers on devices, a number for each load.
    shares: dict[str, list[float]] = field(default_factory=dict)
    events: int = 0
    end: int = 0
    peak: dict[str, int] = field(default_factory=dict)
    _used: dict[str, tuple[int, int]] = field(default_factory=dict)
    _integral: dict[str, int] = field(default_factory=dict)
    _worked: dict[str, int] = field(default_factory=dict)
    _went: dict[str, int] = field(default_factory=dict)
    _places: dict[int, Launched] = field(default_factory=dict)
    _made_room: dict[str, list[_Evicted]] = field(default_factory=dict)

    # --- notes ------------------------------------------------------------------------------------

    def starts(self, start: Start, now: int) -> None:
        name = start.spec.name
        self.loads[name] += 1
        if name in self._went and now - self._went[name] < RELOAD:
            self.reloads[name] += 1

    def load_fails(self, start: Start, out_of_memory: bool) -> None:
        self.failed_loads += 1
        self.out_of_memory += out_of_memory

    def places(self, start: Start, what: Launched, ledger: Ledger, now: int) -> None:
        """A runner has taken its memory: was all the room needed that was made for it?"""
        name = start.spec.name
        self._places[start.runner_id] = what
        self.shares.setdefault(name, []).append(what.share)
        for victim in self._made_room.pop(name, []):
            if victim.at_limit or victim.held is None:
                continue
            if self._fitted_beside(victim.held, what, ledger, now):
                self.needless.append(
                    f"{victim.name} for {name} at {now / SECOND:.0f} s ({victim.reason})"
                )

    @staticmethod
    def _fitted_beside(victim: Launched, what: Launched, ledger: Ledger, now: int) -> bool:
        """Whether what was just taken leaves so much that the victim could still be there."""
        for device in ("", *ledger.gpus):
            wanted, given = (
                held.host if not device else held.devices.get(device, 0)
                for held in (what.held, victim.held)
            )
            free = ledger.free(device, now) + wanted - given
            if wanted > max(0, free) * TIGHT:
                return False
        return True

    def stops(self, start: Start, reason: str, now: int, *, at_limit: bool) -> None:
        name = start.spec.name
        kind, _, beneficiary = reason.partition(" for ")
        self.evictions[kind] += 1
        if beneficiary:
            self._went[name] = now
            held = self._places.get(start.runner_id)
            evicted = _Evicted(name, reason, at_limit, held)
            self._made_room.setdefault(beneficiary, []).append(evicted)

    def looks(self, ledger: Ledger, now: int) -> None:
        """Memory was taken or given back."""
        for device in ("", *ledger.gpus):
            gpu = ledger.gpus.get(device)
            total = ledger.machine.memory if gpu is None else gpu.total
            self._account(device, total - ledger.free(device, now), now)

    def _account(self, device: str, used: int, now: int) -> None:
        since, before = self._used.get(device, (0, 0))
        self._integral[device] = self._integral.get(device, 0) + before * (now - since)
        self._used[device] = (now, used)
        self.peak[device] = max(used, self.peak.get(device, 0))

    def worked(self, what: Launched | None, since: int, now: int) -> None:
        devices = what.held.devices if what is not None else {}
        for device in devices or [""]:
            self._worked[device] = self._worked.get(device, 0) + now - since

    def finish(self, now: int, events: int) -> None:
        self.end, self.events = now, events
        for device, (_, used) in list(self._used.items()):
            self._account(device, used, now)

    # --- figures ----------------------------------------------------------------------------------

    def outcomes(self) -> Counter[str]:
        return Counter(request.outcome for request in self.served)

    def waits(self, model: str = "", outcome: str = "served") -> list[float]:
        """Seconds, sorted."""
        return sorted(
            request.waited / SECOND
            for request in self.served
            if (not model or request.model == model) and request.outcome == outcome
        )

    def mean_used(self, device: str) -> float:
        return self._integral.get(device, 0) / max(1, self.end)

    def work(self, device: str) -> float:
        """Requests in work there, on average."""
        return self._worked.get(device, 0) / max(1, self.end)

    def figures(self) -> dict[str, str]:
        """What settings are compared by."""
        outcomes, waits = self.outcomes(), self.waits()
        return {
            "served": str(outcomes["served"]),
            "refused": str(outcomes["refused"]),
            "failed": str(outcomes["failed"]),
            "left": str(outcomes["left"]),
            "loads": str(self.loads.total()),
            "failed loads": f"{self.failed_loads} ({self.out_of_memory} memory)",
            "reloads": str(self.reloads.total()),
            "evictions": str(self.evictions["makes room"] + self.evictions["memory ran out"]),
            "needless": str(len(self.needless)),
            "crashes": str(self.crashes),
            "wait p50 (s)": f"{quantile(waits, 0.5):.1f}",
            "wait p95 (s)": f"{quantile(waits, 0.95):.1f}",
            "wait max (s)": f"{quantile(waits, 1):.1f}",
            "events": str(self.events),
            "minutes": f"{self.end / SECOND / 60:.0f}",
        }

    def text(self) -> str:
        """The whole report."""
        head = f"machine {self.machine.name}, trace {self.trace}, seed {self.seed}"
        figures = "\n".join(f"  {name:14} {value}" for name, value in self.figures().items())
        errors = Counter(request.error for request in self.served if request.error)
        wrong = "".join(f"\n  {count:5} × {text}" for text, count in errors.most_common(8))
        needless = "".join(f"\n  needless: {text}" for text in self.needless[:8])
        return "\n".join(
            (head, figures, self._devices(), self._stops(), self._models() + wrong + needless)
        )

    def _devices(self) -> str:
        rows = [("memory", "GiB", "used", "peak", "in work")]
        totals = {"": self.machine.memory} | {gpu.id: gpu.total for gpu in self.machine.gpus}
        for device, total in totals.items():
            rows.append(
                (
                    device or "host",
                    f"{total / GIB:.0f}",
                    f"{100 * self.mean_used(device) / total:.0f} %",
                    f"{100 * self.peak.get(device, 0) / total:.0f} %",
                    f"{self.work(device):.2f}",
                )
            )
        return table(rows)

    def _stops(self) -> str:
        return "  unloaded: " + ", ".join(f"{n} × {why}" for why, n in self.evictions.most_common())

    def _models(self) -> str:
        rows = [("model", "served", "other", "p50", "p95", "max", "loads", "again", "on devices")]
        names = sorted({request.model for request in self.served})
        for name in names:
            waits = self.waits(name)
            shares = self.shares.get(name, [])
            rows.append(
                (
                    name,
                    str(len(waits)),
                    str(sum(r.model == name for r in self.served) - len(waits)),
                    *(f"{quantile(waits, part):.1f}" for part in (0.5, 0.95, 1)),
                    str(self.loads[name]),
                    str(self.reloads[name]),
                    f"{100 * sum(shares) / len(shares):.0f} %" if shares else "-",
                )
            )
        return table(rows)


def quantile(values: list[float], part: float) -> float:
    """Of sorted values; 0 when there are none."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns, the first to the left."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
