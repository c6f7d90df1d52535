"""The ops process's own entry: `python -m greenroom.ops --serve TOLD`, which the supervisor starts.

Not for people: it needs what only the arbiter can hand over. It is no command of `greenroom`, because those import each
other's rooms, and this process lives as long as the server, beside it, in memory of its own.
"""

import json
import os
import sys


def main() -> int:
    webhooks = [url for url in os.environ.pop("GREENROOM_OPS_WEBHOOKS", "").split(",") if url]
    token = os.environ.pop("GREENROOM_OPS_TOKEN", "")
    if not any(url.lower().startswith("https:") for url in webhooks):
        leave_out_tls()
    from .program import serve

    return serve(json.loads(sys.argv[2]), token, webhooks)


def leave_out_tls() -> None:
    """Let `import ssl` fail in this process, so that http.client does without: five megabytes that nothing would use.

    The page is plain HTTP, and so is what other hosts' pages are asked with.
    """
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault("ssl", None)


if __name__ == "__main__":
    sys.exit(main())
