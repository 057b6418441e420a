"""Opens the hub that the config names."""

from importlib.util import find_spec

from fleet.config import Fleet
from fleet.hubs import Hub, HubFailed
from foundation.errors import InputError, Unavailable, located
from foundation.secret_file import read_secret


def open_hub(fleet: Fleet) -> Hub:
    """Make the hub, not connected yet.

    Raises:
        InputError: its package is missing, or a file that it names cannot be read.
    """
    with located(f"{fleet.file}: hub"):
        return _hub(fleet)


def try_hub(fleet: Fleet, hub: Hub) -> None:
    """See that a hub is there and keeps what it takes.

    Raises:
        InputError: it is not as the config says; ``Unavailable`` while it cannot be reached.
    """
    try:
        hub.connect()
    except HubFailed as error:
        raise Unavailable(f"{fleet.file}: hub: {error}") from error
    finally:
        hub.close()


def _hub(fleet: Fleet) -> Hub:
    nats, postgresql = fleet.hub.nats, fleet.hub.postgresql
    if nats is not None:
        require("nats", "nats-py")
        from fleet.hubs.jetstream import JetStream

        return JetStream(nats, _password(fleet, "nats", nats.password))
    assert postgresql is not None  # the config has one of them
    require("psycopg", "psycopg")
    from fleet.hubs.postgresql import PostgreSql

    return PostgreSql(postgresql, _password(fleet, "postgresql", postgresql.password))


def _password(fleet: Fleet, kind: str, named: str | None) -> str | None:
    return None if named is None else read_secret(fleet.file, f"hub.{kind}.password", named)


def require(module: str, package: str) -> None:
    """Say in one line that a package is missing, and how it comes.

    Raises:
        InputError: it is missing.
    """
    if find_spec(module) is None:
        raise InputError(
            f"{package}: not installed here; expected the extra fleet: pip install 'inspectd[fleet]'"
        )
