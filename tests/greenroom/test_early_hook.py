import os
import subprocess
import sys
from pathlib import Path

from greenroom import early_hook
from greenroom.early_hook import FOLDER, put_first, take_off

ROOT = Path(__file__).resolve().parents[2]
REPORT = """
import json, os, sys
from gevent import monkey
print(json.dumps({"patched": monkey.is_module_patched("socket"), "path": os.environ.get("PYTHONPATH", ""),
                  "agent": "agent_saw" in os.environ and os.environ["agent_saw"]}))
"""


def test_our_folder_is_put_first_once_and_taken_off() -> None:
    environ = {"PYTHONPATH": os.pathsep.join(["/agent", str(FOLDER), "/shop"])}

    put_first(environ, "/agent")
    assert environ["PYTHONPATH"].split(os.pathsep) == [str(FOLDER), "/agent", "/shop"]
    take_off(environ)
    assert environ["PYTHONPATH"].split(os.pathsep) == ["/agent", "/shop"]


def test_nothing_is_left_where_nothing_was() -> None:
    environ: dict[str, str] = {}

    put_first(environ)
    take_off(environ)

    assert environ == {}


def run(code: str, folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(code)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-m", "greenroom", "run", "--", sys.executable, str(folder / "program.py"), *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_program_is_patched_before_an_agent_and_its_children_are_not(tmp_path: Path) -> None:
    """The launcher does as agents' launchers do: its folder first on PYTHONPATH, and exec."""
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "sitecustomize.py").write_text(
        "import os, socket\nos.environ['agent_saw'] = socket.socket.__module__\nimport requests\n"
    )
    program = tmp_path / "report.py"
    program.write_text(
        REPORT + "import subprocess\nif len(sys.argv) < 2:\n"
        "    sys.stdout.flush()\n    subprocess.run([sys.executable, __file__, 'child'], check=True)\n"
    )
    launcher = (
        "import os, sys\n"
        f"os.environ['PYTHONPATH'] = {str(agent)!r} + os.pathsep + os.environ['PYTHONPATH']\n"
        f"os.execl(sys.executable, sys.executable, {str(program)!r})\n"
    )

    result = run(launcher, tmp_path)

    assert result.returncode == 0, result.stderr
    first, child = result.stdout.splitlines()
    assert '"patched": true' in first
    assert '"agent": "gevent._socket3"' in first, "the agent came after patching"
    assert '"patched": false' in child
    assert str(early_hook.FOLDER) not in first + child


def test_wrong_settings_end_the_program_before_it_begins(tmp_path: Path) -> None:
    result = run("print('began')", tmp_path, GREENROOM_BAKLOG="1")

    assert result.returncode == 2
    assert "did you mean GREENROOM_BACKLOG?" in result.stderr
    assert "began" not in result.stdout


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "greenroom", "run", "--", "no-such-program"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert result.returncode == 2
    assert "there is no program 'no-such-program' on PATH" in result.stderr
