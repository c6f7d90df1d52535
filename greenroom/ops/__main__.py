"""The ops process's own entry: `python -m greenroom.ops --serve TOLD`, which the supervisor starts.

Not for people: it needs what only the arbiter can hand over. It is no command of `greenroom`, because those import each
other's rooms, and this process lives as long as the server, beside it, in memory of its own.
"""

import json
import os
import sys

from .program import serve

if __name__ == "__main__":
    webhooks = os.environ.pop("GREENROOM_OPS_WEBHOOKS", "")
    token = os.environ.pop("GREENROOM_OPS_TOKEN", "")
    sys.exit(serve(json.loads(sys.argv[2]), token, [url for url in webhooks.split(",") if url]))
