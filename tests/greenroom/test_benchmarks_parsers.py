from typing import Any

from benchmarks.parsers import parsers

NAMES = ("REQUEST_METHOD", "RAW_URI", "PATH_INFO", "QUERY_STRING", "HTTP_HOST", "HTTP_COOKIE", "HTTP_USER_AGENT")


def test_all_parsers_make_the_same_of_the_head() -> None:
    environs: list[dict[str, Any]] = []
    for parse in parsers().values():
        made = parse()
        if isinstance(made, tuple):  # gunicorn's: the response, and the environ
            made = made[1]
        environs.append(getattr(made, "environ", made))

    assert len(environs) >= 3
    assert [{name: environ[name] for name in NAMES} for environ in environs] == [
        {name: environs[0][name] for name in NAMES}
    ] * len(environs)
