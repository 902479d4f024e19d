"""Sessions of a ledger in PostgreSQL: URL, settings, poolers, privileges, and the server's identity."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from techforge.batch.database import without_password
from techforge.errors import (
    ConfigurationError,
    InvalidArgumentError,
    LedgerError,
    LedgerUnavailableError,
)

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:  # pragma: no cover - tests have the extra
    raise ConfigurationError(
        "a ledger in PostgreSQL needs more packages: pip install 'techforge[distributed]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SCHEMA = "techforge"
CONNECT_TIMEOUT = 5
"""Seconds for an attempt to connect. Nothing can interrupt one."""
POOLER_TIMEOUT = 5.0
"""Seconds within which a pooler must provide a second connection."""
KEEPALIVE = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""Detect a lost server within 30 seconds. Values are seconds, `tcp_user_timeout` is milliseconds."""
SETTINGS = {
    # With another setting, a crash of the server could lose a committed claim.
    "synchronous_commit": "on",
    # A frozen process or a lost machine must not hold locks.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
TIMEOUTS = {"statement_timeout": "30s", "lock_timeout": "5s"}
"""Our own: those of a role or a database may be far too short, or unlimited. `?options=` wins."""
NO_TIMEOUTS = b"SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)"
"""For a transaction that takes long, such as loading a manifest."""
POOLER = (
    "{name} is behind a connection pooler in transaction mode (pool_mode=transaction): each transaction may "
    "get another session, with another schema. Nothing was submitted. Connect to PostgreSQL directly, or set "
    "pool_mode=session for this database"
)


def split_url(url: str) -> tuple[str, str]:
    """Return the URL without `?schema=`, and the schema.

    Earlier versions called the parameter `campaign`, because a schema held a single campaign.

    Raises:
        InvalidArgumentError: the schema's name is invalid.
    """
    # Not urlsplit, because a password may contain /, ? or #.
    parameter = re.search(r"([?&])(?:schema|campaign)=([^&]*)(&?)", url)
    if parameter is None:
        return url, DEFAULT_SCHEMA
    schema = parameter[2]
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", schema) or schema.startswith("pg_"):
        raise InvalidArgumentError(
            "ledger", "schema= must consist of lower-case letters, digits and _, at most 41 characters"
        )
    if schema in {"public", "information_schema"}:
        raise InvalidArgumentError(
            "ledger",
            f"schema={schema} is not for a ledger: other programs use it. Choose a schema of its own",
        )
    rest = parameter[1] + url[parameter.end() :] if parameter[3] else url[parameter.end() :]
    return url[: parameter.start()] + rest, schema


@frozen
class Address:
    """The database of a ledger, for libpq, and the settings of its sessions.

    The settings are statements and not startup options, because a pooler refuses or drops those.
    """

    name: str
    """The URL without its password."""
    schema: str
    info: str
    settings: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the address that a ledger's URL names.

        Raises:
            LedgerError: PostgreSQL cannot read the URL.
        """
        plain, schema = split_url(url)
        name = without_password(url)
        try:
            given = conninfo_to_dict(plain)
        except psycopg.Error as error:
            # The error may quote a part of the password.
            why = "" if name != url else f": {one_line(error)}"
            raise LedgerError(f"{name} is not a PostgreSQL URL{why}") from None
        parameters = {
            "application_name": "techforge",
            "target_session_attrs": "read-write",
            **KEEPALIVE,
            **given,
        }
        options = str(given.get("options") or "")
        timeouts = {option: value for option, value in TIMEOUTS.items() if option not in options}
        return cls(
            name, schema, make_conninfo("", **parameters), {"search_path": schema, **SETTINGS, **timeouts}
        )

    @property
    def statement(self) -> tuple[bytes, list[str]]:
        """The statement that applies the settings to a session, and its values."""
        calls = ", ".join("set_config(%s, %s, false)" for _ in self.settings)
        return f"SELECT {calls}".encode(), [text for setting in self.settings.items() for text in setting]

    def connect(self) -> psycopg.Connection:
        """Return a connection without the settings."""
        return psycopg.connect(self.info, autocommit=True, connect_timeout=CONNECT_TIMEOUT)

    def prepare(self, db: psycopg.Connection) -> int:
        """Apply the settings, and check that they last. Return the number of the server's process.

        Raises:
            LedgerError: a pooler does not keep the session, or the schema may not be used.
            LedgerUnavailableError: a pooler has no connection left.
        """
        db.execute(*self.statement)
        statement = b"""SELECT pg_backend_pid(), current_setting('search_path'),
            COALESCE(has_schema_privilege(to_regnamespace(%s)::oid, 'USAGE'), true)"""
        ((pid, search_path, may_use),) = db.execute(statement, [self.schema]).fetchall()
        # A pooler answers for the server, and has numbers of its own.
        if search_path != self.schema or (pid != db.info.backend_pid and not self._keeps_session(db, pid)):
            raise LedgerError(POOLER.format(name=self.name))
        if not may_use:
            missing = "; ".join(missing_grants(db, self.schema))
            raise LedgerError(f"the schema {self.schema} of {self.name} may not be used. Missing: {missing}")
        return int(pid)

    def _keeps_session(self, db: psycopg.Connection, pid: int) -> bool:
        """Return whether a second connection leaves this one its process of the server."""
        try:
            with self.connect() as other:
                alarm = threading.Timer(POOLER_TIMEOUT, hang_up, [other])
                alarm.start()
                try:
                    ((other_pid,),) = other.execute("SELECT pg_backend_pid()").fetchall()
                finally:
                    alarm.cancel()
                ((same_pid,),) = db.execute("SELECT pg_backend_pid()").fetchall()
        except psycopg.OperationalError as error:
            raise LedgerUnavailableError(
                f"the connection pooler of {self.name} has no second connection, and a worker needs up to "
                f"seven: {one_line(error)}"
            ) from None
        return bool(pid == same_pid != other_pid)


def hang_up(db: psycopg.Connection) -> None:
    """End a connection that another thread is using. Its statement fails at once."""
    with suppress(OSError, psycopg.Error):
        end = socket.socket(fileno=db.fileno())
        try:
            end.shutdown(socket.SHUT_RDWR)
        finally:
            end.detach()


# --- privileges -----------------------------------------------------------------------------------

_GRANTS: Mapping[str, str] = {
    "CREATE ON DATABASE {database}": (
        "to_regnamespace(%(schema)s) IS NOT NULL OR has_database_privilege(current_database(), 'CREATE')"
    ),
    "TEMPORARY ON DATABASE {database}": "has_database_privilege(current_database(), 'TEMPORARY')",
    "USAGE, CREATE ON SCHEMA {schema}": (
        "COALESCE(has_schema_privilege(to_regnamespace(%(schema)s)::oid, 'USAGE') "
        "AND has_schema_privilege(to_regnamespace(%(schema)s)::oid, 'CREATE'), true)"
    ),
    "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema}": (
        "NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(%(schema)s) "
        "AND relkind = 'r' AND NOT (has_table_privilege(oid, 'SELECT') "
        "AND has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE') "
        "AND has_table_privilege(oid, 'DELETE')))"
    ),
    "USAGE ON ALL SEQUENCES IN SCHEMA {schema}": (
        "NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(%(schema)s) "
        "AND CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(oid, 'USAGE') END)"
    ),
}


def missing_grants(db: psycopg.Connection, schema: str) -> list[str]:
    """Return the statements that grant the privileges which the user of a connection lacks."""
    checks = ", ".join(f"({check})" for check in _GRANTS.values())
    statement = f"SELECT quote_ident(current_user), quote_ident(current_database()), {checks}"
    ((user, database, *granted),) = db.execute(statement.encode(), {"schema": schema}).fetchall()
    return [
        f"GRANT {grant.format(database=database, schema=schema)} TO {user}"
        for grant, is_granted in zip(_GRANTS, granted, strict=True)
        if not is_granted
    ]


# --- the server -----------------------------------------------------------------------------------

_SERVER: Mapping[str, tuple[str, str]] = {
    "system identifier": (
        "SELECT system_identifier::text FROM pg_control_system()",
        "it is another server",
    ),
    "timeline": (
        "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
        "a standby was promoted, or a backup of the server was restored",
    ),
    "table": (
        "SELECT oid || '.' || to_regclass('jobs')::oid FROM pg_database WHERE datname = current_database()",
        "a backup of the ledger was restored",
    ),
}


def find_server(db: psycopg.Connection) -> dict[str, str | None]:
    """Return what identifies the server and the ledger's tables. A part that cannot be found is None."""

    def find(statement: str) -> Any:
        try:
            return next(iter(db.execute(statement.encode()).fetchone() or [None]))
        except psycopg.Error:
            if db.closed:
                raise
            return None  # a managed service may not permit the function

    return {name: find(statement) for name, (statement, _) in _SERVER.items()}


def describe_change(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> str | None:
    """Return what has changed between two results of `find_server`, or None.

    >>> describe_change({"timeline": "00000001"}, {"timeline": "00000002"})
    'a standby was promoted, or a backup of the server was restored (timeline 00000001, now 00000002)'
    """
    for name, (_, meaning) in _SERVER.items():
        known, found = before.get(name), now.get(name)
        if known and found and known != found:
            return f"{meaning} ({name} {known}, now {found})"
    return None


def one_line(error: Exception) -> str:
    """Return the message of an error, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
