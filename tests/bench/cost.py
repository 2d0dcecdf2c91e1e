"""What the full corpus would cost: 8,463 scans, 1,002,012 slices, from the formulas of the dry run.

    python tests/bench/cost.py

The rates are those of `flows/costs.py`: measured for a core, assumed for a GPU until one was there.
What bounds a phase is the largest of its parts; the last column names it.
"""

from __future__ import annotations

from fingerprint.settings import Settings
from flows import costs, forecast

SLICES = 1_002_012
LOADS = ((240, 240), (10_000, 5_000))  # generated, controls
PLACES = (("local", 2), ("local", 64), ("cuda", 1), ("cuda", 8), ("cuda", 64))
PHASES = ("search", "poses", "screen", "refine", "register")


def hours(value: float) -> str:
    """Return hours, minutes or seconds, whichever reads best."""
    seconds = value * 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{value:.1f} h"


def main() -> None:
    """Print one row for each load and place."""
    gpu = "measured" if costs.GPU.measured else "assumed"
    print(f"rates: {costs.CPU.name}; {costs.GPU.name} ({gpu})\n")
    head = ["generated", "controls", "where", *PHASES, "total", "read", "written", "bound by"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for generated, controls in LOADS:
        for cluster, workers in PLACES:
            s = Settings(controls=controls, workers=workers, memory_gib=8)
            told = forecast.of_audit(str(SLICES), str(generated), None, s, cluster=cluster)
            taken = [told[f"hours.{phase}"] for phase in PHASES]
            slowest = PHASES[taken.index(max(taken))]
            sizes = [f"{told[f'bytes_{way}.total'] / 1e12:.2f} TB" for way in ("read", "written")]
            unit = "cores" if cluster == "local" else "GPUs"
            cells = [f"{generated:,}", f"{controls:,}", f"{workers} {unit}", *map(hours, taken)]
            print(f"| {' | '.join([*cells, hours(told['hours.total']), *sizes, slowest])} |")


if __name__ == "__main__":
    main()
