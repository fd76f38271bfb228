"""The operator: the user of the operating system who runs a command, as named in receipts and logs."""

from __future__ import annotations

import os
import pwd


def name() -> str:
    """Returns the user's name, by the process's own user and not by what the environment claims; else their number."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container
        return f"uid {number}"
