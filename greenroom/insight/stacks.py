"""Stacks as lists of (file, line, function), innermost call first; and which of their lines is the application's."""

import functools
import os
import re
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

# How faulthandler begins to write a single thread's stack.
DUMP_BEGIN = "Stack (most recent call first)"
DEEPEST_FRAMES = 60
SITE_PACKAGES = f"{os.sep}site-packages{os.sep}"
_DUMP_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')
_PATHS = sysconfig.get_paths()
_INSTALLED = tuple(sorted({_PATHS[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}))


def _folder_of(package: str) -> tuple[str, ...]:
    """Where a package is, without importing it: the ops process has no use for gevent."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return _both_ways(Path(spec.origin).parent)


def _both_ways(folder: Path) -> tuple[str, ...]:
    """As code objects name it, and without symbolic links: a virtual environment may be reached by one."""
    return tuple({str(path) + os.sep: None for path in (folder.absolute(), folder.resolve())})


_OURS = _both_ways(Path(__file__).parents[1])
# Those that stand between a wait and whoever waits.
GREEN = (*_OURS, *_folder_of("gevent"), "src/gevent/")
UNKNOWN = "a line that nobody saw"
# The garbage collector calls it in whatever code it stops, which it says nothing of.
_COLLECTOR = tuple(folder + os.path.join("insight", "garbage.py") for folder in _OURS)


class Call(NamedTuple):
    """A function that is being called, and the line that it is at."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.place} {self.function}"

    @property
    def place(self) -> str:
        """`file:line`, the file as seen from the working directory if it is below it."""
        return f"{shortened(self.file)}:{self.line}"


Stack = list[Call]


def of_frame(frame: FrameType | None, deepest: int = DEEPEST_FRAMES) -> Stack:
    """The stack that `frame` is the innermost of. Runs on: the thread whose frame it is, see safepoint."""
    stack: Stack = []
    while frame is not None and len(stack) < deepest:
        code = frame.f_code
        stack.append(Call(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        frame = frame.f_back
    return without_collector(stack)


def without_collector(stack: Stack) -> Stack:
    return stack[1:] if stack and stack[0].file in _COLLECTOR else stack


def of_dump(text: str) -> list[Stack]:
    """The stacks of a thread in what faulthandler wrote, one for each time that it wrote."""
    stacks: list[Stack] = []
    for line in text.splitlines():
        if line.startswith(DUMP_BEGIN):
            stacks.append([])
        elif stacks and (call := of_dump_line(line)) is not None:
            stacks[-1].append(call)
    return [stack for stack in map(without_collector, stacks) if stack]


def of_dump_line(line: str) -> Call | None:
    frame = _DUMP_FRAME.fullmatch(line)
    if frame is None:
        return None
    return Call(frame[1], int(frame[2]) if frame[2].isdigit() else 0, frame[3])


def is_ours(file: str) -> bool:
    return file.startswith(_OURS)


def is_installed(file: str) -> bool:
    """Whether the file belongs to Python, a package, or us: not what the application's authors look after.

    Nor is code that was generated ("<sqlalchemy generated ...>", "<frozen ...>", "<string>"): nobody can open it.
    """
    return file.startswith((*_INSTALLED, *_OURS, "<")) or f"{os.sep}site-packages{os.sep}" in file


is_installed_file = _is_installed = functools.lru_cache(maxsize=4096)(is_installed)
# Code that is nobody's fault, by its id; kept, so that no other code gets that id.
_installed_code: dict[int, Any] = {}


def guilty(stack: Stack) -> Call | None:
    """The innermost line of the application's own, else of a package, else the innermost; None if there is none."""
    for call in stack:
        if not _is_installed(call.file):
            return call
    packages = [call for call in stack if SITE_PACKAGES in call.file]
    for call in packages:
        if not call.file.startswith(GREEN):
            return call
    if packages:
        return packages[0]
    return stack[0] if stack else None


def guilty_of_frame(frame: FrameType | None) -> Call | None:
    """The same as guilty(of_frame(frame)) where the application's own code is among them, and cheaper."""
    innermost = frame
    while frame is not None:
        code = frame.f_code
        if id(code) not in _installed_code:
            if _is_installed(code.co_filename):
                _installed_code[id(code)] = code
                frame = frame.f_back
                continue
            return Call(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)
        frame = frame.f_back
    return guilty(of_frame(innermost))


# Modules of Python's own that speak to somebody.
SPEAKING = ("smtplib", "ftplib", "imaplib", "poplib", "ldap3", "telnetlib", "xmlrpc", "urllib", "http")


@functools.lru_cache(maxsize=4096)
def library_of(file: str) -> str:
    """The package that a file belongs to, or the module of Python's that speaks a protocol; "" for all other files."""
    _, mark, inner = file.rpartition(SITE_PACKAGES)
    if mark:
        return "" if file.startswith(GREEN) else inner.partition(os.sep)[0].removesuffix(".py")
    if file.startswith(_INSTALLED):
        inner = shortened(file)
        name = inner.partition(os.sep)[0].removesuffix(".py")
        return name if name in SPEAKING else ""
    return ""


def shortened(file: str) -> str:
    try:
        roots = (os.getcwd() + os.sep, *_INSTALLED[::-1])
    except FileNotFoundError:  # a deployment has deleted the working directory
        roots = _INSTALLED[::-1]
    for root in roots:
        if file.startswith(root):
            return file[len(root) :]
    return file
