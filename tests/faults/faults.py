"""Injects faults of every kind and says what they cost: docs/reliability.md. Called by scripts/faults."""

import argparse
import datetime
import importlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

KINDS = ["kill", "power", "syscalls", "disk", "hang", "damage", "options", "memory", "ids"]

SKIPPED = 77  # exit code, as ctest knows it here


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description="Injects faults and checks that nothing is lost, "
        "silently wrong or hung. short: a minute, as CI runs it; long: the ledger's figures.")
    parser.add_argument("length", nargs="?", choices=["short", "long"], default="short")
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn at random [1]")
    parser.add_argument("--only", metavar="CASE", help="this case alone, as a failure names it; or a pattern: 'train.*'")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the cases")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time, where they allow it [2]")
    parser.add_argument("--build", default="build/cpu", help="build folder [build/cpu]")
    parser.add_argument("--work", help="folder for runs; a temporary one by default")
    parser.add_argument("--json", metavar="FILE", help="figures for the ledger")
    arguments = parser.parse_args()
    available = [k for k in KINDS if importlib.util.find_spec(k)]
    for kind in arguments.kinds:
        if kind not in available:
            parser.error(f"no kind \"{kind}\" ({', '.join(available)})")
    arguments.kinds = arguments.kinds or available
    return arguments


def commit():
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                               text=True, cwd=Path(__file__).parent, check=False)
    return described.stdout.strip() or "unknown"


def run_kind(kind, arguments, work):
    """One line of the ledger."""
    work = work / kind
    work.mkdir()
    context = harness.Context(kind, Path(arguments.build).resolve(), work, arguments.length == "long",
                              arguments.seed, arguments.only, arguments.jobs, arguments.keep)
    start = time.monotonic()
    try:
        importlib.import_module(kind).run(context)
    except harness.Skip as skip:
        context.skip(str(skip))
    except harness.Failure as failure:  # outside any case: the undisturbed run itself fails
        context.fail("setup", failure.kind, str(failure), work)
    return {"kind": kind, "injected": context.injected, **context.counts,
            "seconds": round(time.monotonic() - start, 1), "notes": context.notes,
            "skipped": context.skipped}


def print_line(line):
    notes = ", ".join(f"{count} {name}" for name, count in line["notes"].items())
    print(f"{line['kind']:<10}{line['injected']:>9}{line['lost']:>7}{line['wrong']:>7}"
          f"{line['hung']:>7}{line['seconds']:>9.1f}  {notes}", flush=True)


def main():
    arguments = parse_arguments()
    work = Path(tempfile.mkdtemp(prefix="serrate_faults.", dir=arguments.work))
    print(f"{'kind':<10}{'injected':>9}{'lost':>7}{'wrong':>7}{'hung':>7}{'seconds':>9}")
    lines = []
    try:
        for kind in arguments.kinds:
            lines.append(run_kind(kind, arguments, work))
            print_line(lines[-1])
    finally:
        if not arguments.keep:
            shutil.rmtree(work, ignore_errors=True)
    if arguments.json:
        ledger = {"date": datetime.date.today().isoformat(), "commit": commit(),
                  "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
                  "length": arguments.length, "seed": arguments.seed, "kinds": lines}
        Path(arguments.json).write_text(json.dumps(ledger, indent=2) + "\n")
    if any(line[kind] for line in lines for kind in ("lost", "wrong", "hung")):
        sys.exit(1)
    if not any(line["injected"] for line in lines):
        print("nothing was injected", file=sys.stderr)
        sys.exit(SKIPPED if any(line["skipped"] for line in lines) else 1)


if __name__ == "__main__":
    main()
