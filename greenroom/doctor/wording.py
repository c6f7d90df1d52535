"""Words that several findings have."""


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def change_for_stall(called: str, holds_gil: bool) -> str:
    if holds_gil:
        return (
            "C code that keeps the GIL helps no thread: bound its input (a regular expression without nested "
            "repetition), or do it in a job."
        )
    if called:
        return (
            "Do less of it, or do it in a job; C code that gives the GIL away can run in threads: name the function in "
            "GREENROOM_OFFLOAD (it computes) or GREENROOM_OFFLOAD_DRIVERS (it waits for somebody)."
        )
    return "Compute less in the request: remember the result, or do it in a job (Celery, RQ)."
