"""Which scheduling gets answers soonest: balancers of the gateway, and other gateways, by scenario.

What runs
  The engines of a scenario and its users (`olla-loadtest fleet` and `people`) share one processor,
  the gateway has another one and one worker. Each scenario goes through each column one after the
  other, with fresh engines and the same conversations each time. The table has medians over the
  seeds. Do not use the machine for anything else meanwhile: `late` is the p99 of how late the
  engines and the users themselves were, and above 1 ms the times mean little.

Scenarios: the files in loadtest/scenarios; `--scenarios` also takes paths
  chat         growing conversations, 8 endpoints
  onesystem    one system prompt for all
  mixed        two strong and six weak machines
  loading      llama.cpp refuses with 503 while it loads a model
  flood        a batch job floods, people chat beside it
  agents       120 long shared prompts
  cold         nothing to reuse; short prompts beside very long ones
  models       twelve models, room for three on each of four machines
  long         short outputs beside long ones
  chat-noise, mixed-noise, flood-noise: with output lengths and prefill speeds that vary
  chat-early   engines that send the head of a stream on arrival and not with the first token
  slow, lies   (only by name) an endpoint that is slower for a while; endpoints that report nonsense

Columns
  least-connections
  sticky       least-connections with proxy.sticky_sessions by prefix_hash
  least-time   vLLM endpoints have max_concurrent, which they do not report themselves
  smg, vllm-router: cache_aware, from --venv; only where all engines are vLLM with one model

Checks of the column least-time, for the first load of each scenario: the bounds of some scenarios
(BOUNDS in the script); not more requests failed or unfinished than in any other column, within 1 %
of all; and p50 and p99 of the first token not above those of any column that does not lose more, by
more than 5 % and 2 ms, which is noise. Exit status 1 when one fails.

Writes raw.json, table.md and chart.svg into the output directory.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from trials import schedule_report
from trials.cli import add_names, positive
from trials.host import ROOT, WrongUsage, note
from trials.process import NotReady, Processes, choose_cpus, cpu_seconds
from trials.report import finish
from trials.schedule_columns import BALANCERS, NAMES, Fleet, missing, suits

BINARIES = ("olla", "olla-loadtest")
SCENARIOS = ROOT / "loadtest" / "scenarios"
DEFAULT_SCENARIOS = (
    "chat,onesystem,mixed,loading,flood,agents,cold,models,long,chat-noise,mixed-noise,flood-noise,"
    "chat-early"
)
DRAIN_SECONDS = 5
# With less of it, what seems to wait is on its way.
WAITING_SECONDS_MIN = 1
# Scenario -> (figure, at most or at least, bound) of its first load, for least-time. First token
# and end to end in milliseconds, shares from 0 to 1.
BOUNDS = {
    "chat": [("p50", "<=", 28), ("p90", "<=", 55), ("hits", ">=", 0.87)],
    "onesystem": [("p50", "<=", 30), ("p99", "<=", 90)],
    "mixed": [("mean", "<=", 45), ("hits", ">=", 0.80)],
    "loading": [("failed", "<=", 0), ("p99", "<=", 6500)],
    "flood": [("p50", "<=", 350), ("p99", "<=", 1400), ("busy", ">=", 0.95)],
}
JUDGED = "least-time"
# Differences within these are noise.
NOISE_SHARE, NOISE_MS, LOST_SHARE = 0.05, 2, 0.01


def add_arguments(parser):
    out = ROOT / "loadtest" / "runs" / f"{time.strftime('%Y-%m-%d')}-schedule"
    add = parser.add_argument
    text = f"names or paths, comma-separated; default: {DEFAULT_SCENARIOS.replace(',', ', ')}"
    add("--scenarios", type=paths, default=DEFAULT_SCENARIOS, metavar="A,B", help=text)
    add_names(parser, "--columns", NAMES)
    add("--seeds", type=seeds, default="1,2", metavar="N,N", help="default: 1,2")
    add("--seconds", type=positive(float), help="length of each run instead of the scenario's")
    add("--venv", type=Path, metavar="DIR", help="a virtual environment with smg or vllm-router")
    text = "default: loadtest/runs/<date>-schedule"
    add("--out", type=Path, metavar="DIR", default=out, help=text)
    add("--gateway-cpu", type=int, help="processor of the gateway (default: the first allowed)")
    add("--load-cpu", type=int, help="processor of the load (default: the second allowed)")


def paths(text):
    """The argument type of scenarios."""
    found = []
    for name in filter(None, text.split(",")):
        path = Path(name) if name.endswith(".json") else SCENARIOS / f"{name}.json"
        if not path.exists():
            names = ", ".join(sorted(one.stem for one in SCENARIOS.glob("*.json")))
            raise argparse.ArgumentTypeError(f'expected names out of {names}, got "{name}"')
        found.append(path.resolve())
    return found


def seeds(text):
    """The argument type of seeds."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected whole numbers, got "{text}"') from None


def run(settings):
    settings.gateway_cpu, settings.load_cpu = choose_cpus(settings.gateway_cpu, settings.load_cpu)
    take_precedence()
    if settings.venv:
        settings.venv = settings.venv.resolve()
    with Processes() as processes:
        for name in list(settings.columns):
            reason = missing(name, settings, processes.directory)
            if reason:
                note(f"without {name}: {reason}")
                settings.columns.remove(name)
    if not settings.columns:
        raise WrongUsage("none of the columns can run here")
    began = time.monotonic()
    samples, failures = [], []
    for path in settings.scenarios:
        scenario = json.loads(path.read_text())
        for seed in settings.seeds:
            for column in settings.columns:
                if suits(column, scenario["engines"]):
                    measure(path, seed, column, settings, samples, failures)
    medians = medians_of(samples)
    failures += check(medians)
    document = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"processor": processor(), "kernel": platform.release().partition("-")[0]},
        "seeds": settings.seeds,
        "seconds": settings.seconds,
        "duration_s": round(time.monotonic() - began),
        "columns": settings.columns,
        "scenarios": [path.stem for path in settings.scenarios],
        "medians": medians,
        "failures": failures,
        "samples": samples,
    }
    schedule_report.write(document, settings.out)
    if JUDGED not in settings.columns:
        note(f"nothing is checked without the column {JUDGED}")
    return finish(failures)


def take_precedence():
    """Runs the gateway and the load before other programs, where that is permitted: one that has
    the processor would keep it for some milliseconds."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        note("real-time scheduling is not permitted; other programs may disturb the times")


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


# ---- Measuring ----


def measure(path, seed, column, settings, samples, failures):
    """One scenario through one column, with fresh engines: a sample, or a failure."""
    try:
        sample = converse(path, seed, column, settings)
    except NotReady as reason:
        note(f"{path.stem}, {column}: {reason}")
        failures.append(f"{path.stem}, {column}, seed {seed}: {reason}")
        return
    samples.append(sample)
    for name, row in sample["loads"].items():
        where = f"{path.stem:<12} {column:<18} seed {seed} {name:<8}"
        cells = [f"{key} {schedule_report.cell(key, row[key])}" for key in schedule_report.SHOWN]
        note(f"{where} {', '.join(cells)}")


def converse(path, seed, column, settings):
    scenario = json.loads(path.read_text())
    with Fleet(settings, path, seed) as fleet:
        process, port, target = fleet.start_column(column)
        report = fleet.directory / "people.json"
        command = [settings.loadtest_bin, "people", "--scenario", path, "--seed", seed]
        command += ["--target", f"127.0.0.1:{port}", "--path", target, "--json", report]
        command += ["--engines", fleet.addresses, "--drain", DRAIN_SECONDS]
        if settings.seconds:
            command += ["--seconds", settings.seconds]
        seconds = settings.seconds or scenario["seconds"]
        before = cpu_seconds(process), cpu_seconds(fleet.process)
        people = fleet.start("people", command, cpu=settings.load_cpu)
        try:
            status = people.wait(seconds + DRAIN_SECONDS + 30)
        except subprocess.TimeoutExpired:
            raise NotReady("the users did not end") from None
        after = cpu_seconds(process), cpu_seconds(fleet.process)
        if status:
            last = last_line(fleet, "people")
            raise NotReady(f"the users ended with status {status}: {last}")
        if process.poll() is not None:
            log = "olla" if column in BALANCERS else column
            raise NotReady(f"it ended: {last_line(fleet, log)}")
        result = json.loads(report.read_text()) | {"scenario": path.stem}
    return {
        "scenario": path.stem,
        "column": column,
        "seed": seed,
        "cpu_s": after[0] - before[0],
        "engines_cpu_s": after[1] - before[1],
        "loads": figures(result),
        "slow": slow_rates(scenario, result),
        "report": result,
    }


def last_line(fleet, name):
    return "".join(fleet.log_tail(name).strip().splitlines()[-1:])


def slow_rates(scenario, report):
    """Requests a second at the engines that are slower for a while: before, meanwhile and after."""
    specs = [spec for spec in scenario["engines"] for _ in range(spec.get("count", 1))]
    rates = []
    for spec, engine in zip(specs, report["engines"]):
        begin, end = int(spec.get("slow_from_s", 0)), int(spec.get("slow_until_s", 0))
        if begin < end:
            counts = engine["by_second"]
            counts += [0] * (int(report["seconds"]) - len(counts))
            parts = [counts[:begin], counts[begin:end], counts[end:]]
            rates.append([statistics.mean(part or [0]) for part in parts])
    return rates


def figures(report):
    """The columns of the table for each load, in milliseconds and shares from 0 to 1."""
    late = [report[name] for name in ("late_us", "engines_late_us")]
    busy = report["busy_while_waiting"]
    common = {
        "loads": sum(engine["loads"] for engine in report["engines"]),
        "busy": busy["share"] if busy["seconds"] >= WAITING_SECONDS_MIN else None,
        "full": statistics.mean(engine["full_share"] for engine in report["engines"]),
        "late": max(times["p99"] / 1000 for times in late if times),
    }
    result = {}
    for name, load in report["loads"].items():
        first, whole = load["first_token_us"] or {}, load["end_to_end_us"] or {}
        row = {key: load[key] for key in ("requests", "failed", "unfinished", "output_tokens")}
        row |= {key: ms(first.get(key)) for key in ("p50", "p90", "p99", "mean")}
        row |= {f"e2e {key}": ms(whole.get(key)) for key in ("p50", "p99")}
        result[name] = row | {"hits": load["hit_share"]} | common
    return result


def ms(us):
    return None if us is None else us / 1000


def medians_of(samples):
    """Scenario -> load -> column -> figure: medians over the seeds."""
    groups = {}
    for sample in samples:
        for load, row in sample["loads"].items():
            place = groups.setdefault(sample["scenario"], {}).setdefault(load, {})
            place.setdefault(sample["column"], []).append(row)
    return {
        scenario: {
            load: {column: median_row(rows) for column, rows in columns.items()}
            for load, columns in loads.items()
        }
        for scenario, loads in groups.items()
    }


def median_row(rows):
    result = {}
    for key in rows[0]:
        values = [row[key] for row in rows if row[key] is not None]
        # A single failure must not be lost in a median.
        pick = max if key in ("failed", "unfinished") else statistics.median
        result[key] = pick(values) if values else None
    return result


# ---- Checking ----


def check(medians):
    """What is wrong with the judged column."""
    failures = []
    for scenario, loads in medians.items():
        load, columns = next(iter(loads.items()))
        row = columns.get(JUDGED)
        if not row:
            continue
        for key, sign, bound in BOUNDS.get(scenario, ()):
            value = row[key]
            good = value is not None and (value <= bound if sign == "<=" else value >= bound)
            if not good:
                shown = schedule_report.cell(key, value)
                failures.append(f"{scenario}, {load}: {key} {shown}, expected {sign} {bound}")
        for other, its in columns.items():
            failures += worse(f"{scenario}, {load}", row, other, its)
    return failures


def lost_share(row):
    return (row["failed"] + row["unfinished"]) / max(row["requests"], 1)


def worse(what, row, other, its):
    """Where the judged column is slower than another one, beyond noise, or loses more requests.

    The times are of requests that got a response: those of a column that loses more say nothing.
    """
    own, others = lost_share(row), lost_share(its)
    if own > others + LOST_SHARE:
        return [f"{what}: {own:.1%} failed or unfinished, {other} has {others:.1%}"]
    if others > own + LOST_SHARE:
        return []
    failures = []
    for key in ("p50", "p99"):
        if its[key] is None:
            continue
        allowed = its[key] * (1 + NOISE_SHARE) + NOISE_MS
        if row[key] is None or row[key] > allowed:
            got = schedule_report.cell(key, row[key])
            failures.append(f"{what}: {key} {got}, {other} has {its[key]:.0f}")
    return failures
