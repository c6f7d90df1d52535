"""Python imports this before any program, where `greenroom run` has put this folder first on PYTHONPATH."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent

try:
    from greenroom import early_hook
except ImportError:
    # Another Python than the one that `greenroom run` has, or a checkout that is not installed.
    sys.path.append(str(_HERE.parent.parent))
    from greenroom import early_hook

early_hook.begin(_HERE)
