"""Adds a user from the command line: the first one, before anybody can log in."""

import getpass
import os
import sys

from dashboard.access import LOCAL, SHORTEST_PASSWORD, secret_of
from dashboard.config import DashboardConfig
from dashboard.labels import Labels
from dashboard.serve import labels_file
from foundation.errors import InputError
from verdicts.checks import NAME


def set_user(config: DashboardConfig, name: str, role: str) -> int:
    """Add a user, or give one another role and password; give the exit code.

    The password is asked for on the terminal, or is the first line of the standard input.

    Raises:
        InputError: the name or the password is of no use, or the file of labels is damaged.
    """
    if not NAME.fullmatch(name) or name == LOCAL:
        raise InputError(f"--user: found {name!r:.80}, expected a name of letters, digits, '_', '.' or '-'")
    password = _password(name)
    if len(password) < SHORTEST_PASSWORD:
        raise InputError(f"password: expected {SHORTEST_PASSWORD} characters or more")
    config.state.mkdir(parents=True, exist_ok=True)
    labels = Labels(labels_file(config))
    try:
        others = [user for known, user in labels.users().items() if known != name]
        if role != "change" and not any(user["role"] == "change" for user in others):
            raise InputError("--role: the only user needs the role change: somebody has to add the others")
        entry = {"name": name, "role": role, "secret": secret_of(password)}
        labels.add(os.environ.get("USER") or "root", "user", None, entry)
    finally:
        labels.close()
    print(f"{labels_file(config)}: {name} may {role}")
    return 0


def _password(name: str) -> str:
    if sys.stdin.isatty():
        first = getpass.getpass(f"password of {name}: ")
        if getpass.getpass("once more: ") != first:
            raise InputError("password: the two are different")
        return first
    return sys.stdin.readline().rstrip("\n")
