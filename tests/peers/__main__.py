"""`python -m tests.peers [SUITE ...]`: exit status 1 where we fail what is passed without us, or allow what we pass."""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

from .suites import ROOT, SUITES, Suite, fetch

# By its path: the suites have packages of the name `tests`, too.
INSIDE = Path(__file__).with_name("inside.py")
ALLOWED = Path(__file__).with_name("allowed.txt")
GOOD = ("passed", "skipped")
# A run that ends without getting on, so many times: what is left is given up.
MOST_STARTS = 60


def run(
    suite: Suite, way: str, folder: Path, only: str, ways: list[str], tests: list[str] | None = None
) -> dict[str, dict[str, str]]:
    """Each test's outcome, and why; with `tests`, of these."""
    source = fetch(suite, folder)
    environ = os.environ | suite.environ()
    environ["PYTHONPATH"] = os.pathsep.join([*(str(source / path) for path in suite.paths), str(ROOT)])
    environ["PEERS_NEEDS"] = str(source.parent / "needs")
    if tests is not None:
        environ["PEERS_TESTS"] = json.dumps(tests)
    out = folder / f"{suite.name}.{way}.jsonl"
    if way not in ways:
        return outcomes(out)
    out.unlink(missing_ok=True)
    for part in suite.parts:
        if only and not fnmatch.fnmatch(" ".join(part), f"*{only}*"):
            continue
        arguments = [word.format(**environ) for word in part]
        with open(folder / f"{suite.name}.{way}.log", "ab") as log:
            for _ in range(MOST_STARTS):
                before = out.read_bytes() if out.exists() else b""
                ended = subprocess.run(
                    [sys.executable, str(INSIDE), way, str(out), suite.kind, *arguments],
                    cwd=source,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                if ended.returncode == 0 or (out.read_bytes() if out.exists() else b"") == before:
                    break
        if ended.returncode:
            with open(out, "a") as file:
                line = {"test": " ".join(part), "outcome": "crashed", "why": f"exit status {ended.returncode}"}
                file.write(json.dumps(line) + "\n")
    return outcomes(out)


def outcomes(out: Path) -> dict[str, dict[str, str]]:
    return {line["test"]: line for line in map(json.loads, out.read_text().splitlines())} if out.exists() else {}


def allowed() -> list[tuple[str, str, str]]:
    """Suite, test (a pattern), reason."""
    lines = [line for line in ALLOWED.read_text().splitlines() if line and not line.startswith("#")]
    found = [tuple(part.strip() for part in line.split("|", 2)) for line in lines]
    assert all(len(parts) == 3 and parts[2] for parts in found), "allowed.txt: suite | test | reason"
    return found  # type: ignore[return-value]


def unneeded(reasons: list[tuple[str, str]], differing: list[str]) -> list[str]:
    """Return the entries of allowed.txt that allow nothing. One whose reason begins with "sometimes" may do so."""
    return [
        test for test, reason in reasons if not reason.startswith("sometimes") and not fnmatch.filter(differing, test)
    ]


def compare(suite: Suite, folder: Path, only: str, ways: list[str], is_quick: bool) -> list[str]:
    """Return the tests that we fail, and the other way does not, and what is allowed and does not differ."""
    if is_quick:
        ours = run(suite, "greenroom", folder, only, ways)
        failed = [test for test, line in ours.items() if line["outcome"] not in GOOD]
        without = run(suite, suite.without, folder, only, ways, failed)
        # One that is not there is the error of a whole module, which the other way does not have.
        without |= {test: {"outcome": "passed"} for test in failed if test not in without}
    else:
        without = run(suite, suite.without, folder, only, ways)
        ours = run(suite, "greenroom", folder, only, ways)
    reasons = [(test, reason) for name, test, reason in allowed() if name == suite.name]
    worse = []
    differing = []
    report = []
    for test, line in sorted(ours.items()):
        other = without.get(test, {}).get("outcome", "missing")
        if line["outcome"] in GOOD:
            continue
        reason = next((reason for pattern, reason in reasons if fnmatch.fnmatch(test, pattern)), "")
        # A part that did not run has shown nothing, also where it runs in neither way.
        is_both = other not in GOOD and line["outcome"] != "not run"
        verdict = "both" if is_both else f"allowed: {reason}" if reason else "WORSE"
        if verdict == "WORSE":
            worse.append(test)
        elif not is_both:
            differing.append(test)
        last = (line["why"].strip().splitlines() or [""])[-1]
        report.append(f"{verdict} | {test} | {suite.without}: {other} | ours: {line['outcome']} | {last}")
    for test in sorted(test for test in set(without) - set(ours) if without[test]["outcome"] == "passed"):
        reason = next((reason for pattern, reason in reasons if fnmatch.fnmatch(test, pattern)), "")
        (differing if reason else worse).append(test)
        verdict = f"allowed: {reason}" if reason else "WORSE"
        report.append(f"{verdict} | {test} | {suite.without}: {without[test]['outcome']} | ours: missing |")
    # Parts of a suite can't say what is not needed for the whole.
    stale = [] if only else unneeded(reasons, differing)
    report += [f"NOT NEEDED | {test} | does not differ: take it out of {ALLOWED.name}" for test in stale]
    (folder / f"{suite.name}.txt").write_text("\n".join(report) + "\n")
    passed = sum(line["outcome"] == "passed" for line in ours.values())
    passed_without = sum(line["outcome"] == "passed" for line in without.values())
    print(
        f"{suite.name}: {len(ours)} tests, {passed} pass under greenroom, {passed_without} "
        f"{'of the others ' if is_quick else ''}under {suite.without}; "
        f"{len(worse)} worse and not allowed, {len(differing)} allowed, {len(stale)} allowed and not needed",
        flush=True,
    )
    return [f"{suite.name}: {test}" for test in worse] + [
        f"{suite.name}: {test} does not differ: take it out of {ALLOWED.name}" for test in stale
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--folder", type=Path, default=ROOT / "instance" / "peers-suites", help="sources, outcomes")
    parser.add_argument("--only", default="", help="only parts whose arguments have this in them")
    parser.add_argument("--quick", action="store_true", help="run the other way only for what we fail")
    parser.add_argument("--ways", nargs="*", default=["stock", "gevent", "greenroom"], help="others: as last time")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    worse = []
    for name in options.suites or SUITES:
        worse += compare(SUITES[name], options.folder.resolve(), options.only, options.ways, options.quick)
    for line in worse:
        print(line)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
