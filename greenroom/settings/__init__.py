"""The server's settings: fields (what there is) -> reading (from the environment and files) -> documenting.

Each field is a knob (see knobs); addresses reads those that name hosts.
"""

from ..errors import SettingsError
from .documenting import Row, rows
from .fields import GREEN_WORKER_CLASSES, OFFLOAD_DEFAULTS, PLAIN_WORKER_CLASSES
from .knobs import environment_name
from .reading import (
    Settings,
    comma_separated,
    is_dotted_name,
    read_env_file,
    read_env_files,
    read_environment,
    set_from_files,
    unknown_names,
)

__all__ = [
    "GREEN_WORKER_CLASSES",
    "OFFLOAD_DEFAULTS",
    "PLAIN_WORKER_CLASSES",
    "Row",
    "Settings",
    "SettingsError",
    "comma_separated",
    "environment_name",
    "is_dotted_name",
    "read_env_file",
    "read_env_files",
    "read_environment",
    "rows",
    "set_from_files",
    "unknown_names",
]
