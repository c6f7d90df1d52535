"""`python -m app.config`: are the settings fine? Starts nothing and touches no database.

All problems go to standard error, one a line, with exit code 2. With --env-template or --markdown it prints the
settings instead.
"""

import argparse
import sys

from . import ConfigError, read_config
from .rows import env_template, markdown_table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.config", description=__doc__)
    parser.add_argument("--env-template", action="store_true", help="print the application's part of .env-template")
    parser.add_argument("--markdown", action="store_true", help="print the settings as the table of docs/settings.md")
    chosen = parser.parse_args(arguments)
    if chosen.env_template or chosen.markdown:
        print(env_template() if chosen.env_template else markdown_table(), end="")
        return 0
    try:
        read_config()
    except ConfigError as exc:
        print_problems(exc)
        return 2
    print("settings are fine")
    return 0


def print_problems(exc: ConfigError) -> None:
    for problem in exc.problems:
        print(f"  - {problem}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
