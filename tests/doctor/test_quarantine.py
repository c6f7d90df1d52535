"""Files that an application removes, renames or rotates under the doctor are there again afterwards, as they were."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from greenroom.doctor.scratch import Scratch

WORK = {
    "removes": "os.remove('notes.txt')",
    "removes a tree": "shutil.rmtree('cache')",
    "removes and writes anew": "os.remove('notes.txt'); Path('notes.txt').write_text('other')",
    "writes over and removes": "Path('notes.txt').write_text('other'); os.remove('notes.txt')",
    "renames": "os.rename('notes.txt', 'old.txt')",
    "renames a folder": "os.rename('cache', 'cache.old')",
    "renames and writes anew": "os.rename('notes.txt', 'old.txt'); Path('notes.txt').write_text('other')",
    "replaces atomically": "Path('new').write_text('other'); os.replace('new', 'notes.txt')",
    "cuts": "os.truncate('notes.txt', 1)",
    "links": "os.symlink('notes.txt', 'link'); os.link('notes.txt', 'hard')",
    "removes a link": "os.remove('pointer')",
    "rotates": "log = RotatingFileHandler('notes.txt', maxBytes=40, backupCount=2)\n"
    "for number in range(9): log.emit(logging.makeLogRecord({'msg': f'line {number} of a log'}))",
    "works in threads": "with ThreadPoolExecutor(4) as pool:\n"
    "    list(pool.map(os.remove, [f'many/{n}' for n in range(50)]))",
}
HEAD = """
import logging, os, shutil
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import RotatingFileHandler
from pathlib import Path
from greenroom.doctor.inside import quarantine
if PATCHED:
    from gevent import monkey
    monkey.patch_all()
quarantine.from_environment().install()
"""


def contents(folder: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_file_is_as_it_was(work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    Path("pointer").symlink_to("notes.txt")
    for folder in ("cache", "many"):
        Path(folder).mkdir()
        for number in range(50):
            Path(folder, str(number)).write_text(f"{number}")
    before = contents(tmp_path)

    with Scratch() as scratch:
        for is_patched in (False, True):  # one worker after the other
            command = [sys.executable, "-c", HEAD.replace("PATCHED", str(is_patched)) + work]
            environ = scratch.environment()
            ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
            assert is_patched or ended.returncode == 0, ended.stderr

    after = contents(tmp_path)
    if "Rotating" in work:  # lines that are appended stay
        assert isinstance(after["notes.txt"], bytes)
        assert after["notes.txt"].startswith(b"mine")
        after["notes.txt"] = b"mine"
    assert after == before


def test_nothing_but_greenroom_is_put_on_the_application_s_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)

    with Scratch() as scratch:
        folders = [Path(path) for path in scratch.environment().get("PYTHONPATH", "").split(os.pathsep) if path]

        assert [path.name for folder in folders for path in folder.iterdir()] in ([], ["greenroom"])
