"""Accounts: tenants, API keys and portal sessions; who may ask, before any ruling on data.

Keys and tokens carry 256 bits from the system's generator; the database holds only a keyed hash of them (HMAC-SHA256
under `keys/service.key`), so a copy of the database lets nobody in. Revoking takes effect on the next request.
"""

import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from residency.database import Database, metadata
from residency.decision import Principal
from service.errors import CredentialError, InvalidRequestError

SCOPES = ("ask", "upload", "review", "report", "admin")
ACTIVITIES = frozenset({"search", "indexing", "erasure"})
"""Entries of the Art. 30 register that every account is registered for, until the operator names others."""
SIGN_IN_SECONDS = 15 * 60
SESSION_SECONDS = 12 * 3600
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

tenants = sa.Table(
    "tenant",
    metadata,
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("ceiling", sa.JSON, nullable=False),
    sa.Column("zone", sa.String(16), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)
keys = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(63), sa.ForeignKey("tenant.id"), nullable=False, index=True),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
    sa.Column("revoked", sa.Float),
)
"""API keys (`kind` key), one-time sign-in tokens (signin) and portal sessions (session): all are bearer secrets."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation we serve; `ceiling` are the Zones that none of its data leaves."""

    id: str
    ceiling: frozenset[str]
    zone: str


class Accounts:
    """Issues, checks and revokes credentials. `secret` is the 32 bytes of `keys/service.key`."""

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    def _hash(self, token: str) -> bytes:
        return hmac.digest(self._secret, b"domicile/v1/credential\x00" + token.encode(), sha256)

    # --- tenants ---

    def tenants(self) -> list[Tenant]:
        """List every tenant."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(tenants).order_by(tenants.c.id)).all()
        return [Tenant(row.id, frozenset(row.ceiling), row.zone) for row in rows]

    def ensure_tenant(self, tenant: str, *, ceiling: Iterable[str], zone: str) -> Tenant:
        """Give the tenant, made with this ceiling when it is new. Raises `InvalidRequestError` for a bad name."""
        if not _SLUG.fullmatch(tenant):
            raise InvalidRequestError(
                "a tenant is named by 1 to 63 lower-case letters, digits and hyphens", param="tenant", hint="try `acme`"
            )
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(tenants).where(tenants.c.id == tenant)).one_or_none()
            if row is not None:
                return Tenant(row.id, frozenset(row.ceiling), row.zone)
            connection.execute(
                tenants.insert().values(id=tenant, ceiling=sorted(ceiling), zone=zone, created=time.time())
            )
        return Tenant(tenant, frozenset(ceiling), zone)

    def set_ceiling(self, tenant: str, ceiling: Iterable[str]) -> None:
        """Change the Zones that the tenant's data may be processed in."""
        with self._database.transaction() as connection:
            connection.execute(tenants.update().where(tenants.c.id == tenant).values(ceiling=sorted(ceiling)))

    # --- credentials ---

    def issue(
        self,
        tenant: str,
        *,
        scopes: Iterable[str],
        groups: Iterable[str] = (),
        kind: str = "key",
        lifetime: float | None = None,
    ) -> str:
        """Make a credential and give it, once; only its keyed hash is kept. `lifetime` in seconds."""
        wanted = sorted(set(scopes))
        for scope in wanted:
            if scope not in SCOPES:
                raise InvalidRequestError(f"unknown scope {scope!r}", param="scope", hint=f"one of {', '.join(SCOPES)}")
        if not wanted:
            raise InvalidRequestError("a key needs at least one scope", param="scope", hint="add --scope ask")
        token = f"dom_{secrets.token_urlsafe(32)}"
        now = time.time()
        with self._database.transaction() as connection:
            connection.execute(
                keys.insert().values(
                    id=secrets.token_hex(8),
                    tenant=tenant,
                    hash=self._hash(token),
                    kind=kind,
                    scopes=wanted,
                    groups=sorted(set(groups)),
                    created=now,
                    expires=None if lifetime is None else now + lifetime,
                )
            )
        return token

    def check(self, token: str, *, kind: str = "key") -> Principal:
        """Give who holds this credential. Raises `CredentialError`; unknown, revoked and expired look the same."""
        return self.identify(token, kind=kind)[0]

    def identify(self, token: str, *, kind: str = "key") -> tuple[Principal, frozenset[str]]:
        """Give who holds this credential and the tenant's ceiling as it stands now."""
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(keys, tenants.c.zone, tenants.c.ceiling)
                .join(tenants, tenants.c.id == keys.c.tenant)
                .where(keys.c.hash == self._hash(token), keys.c.kind == kind)
            ).one_or_none()
        if row is None or row.revoked is not None or (row.expires is not None and row.expires < time.time()):
            raise CredentialError("the key is unknown, revoked or expired", hint="ask your operator for a key")
        principal = Principal(
            id=f"{row.kind}:{row.id}",
            tenant=row.tenant,
            activities=ACTIVITIES,
            scopes=frozenset(row.scopes),
            zone=row.zone,
            groups=frozenset(row.groups),
        )
        return principal, frozenset(row.ceiling)

    def sign_in(self, token: str) -> str:
        """Trade a one-time sign-in token, or an API key, for a session token."""
        try:
            principal = self.check(token, kind="signin")
        except CredentialError:
            principal = self.check(token)
        else:
            self.revoke(principal.id)
        return self.issue(
            principal.tenant,
            scopes=principal.scopes,
            groups=principal.groups,
            kind="session",
            lifetime=SESSION_SECONDS,
        )

    def csrf(self, principal: Principal) -> str:
        """Give the token that a session's own pages send back with every change; bound to the session."""
        return hmac.new(self._secret, b"domicile/v1/csrf\x00" + principal.id.encode(), sha256).hexdigest()

    def revoke(self, credential: str) -> bool:
        """Revoke by id (`key:…`, or the bare id); say whether it was live."""
        bare = credential.rpartition(":")[2]
        with self._database.transaction() as connection:
            done = connection.execute(
                keys.update().where(keys.c.id == bare, keys.c.revoked.is_(None)).values(revoked=time.time())
            )
        return bool(done.rowcount)

    def listing(self, tenant: str | None = None) -> list[dict[str, Any]]:
        """List API keys without their secrets."""
        query = sa.select(keys).where(keys.c.kind == "key").order_by(keys.c.created)
        if tenant:
            query = query.where(keys.c.tenant == tenant)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            {
                "id": row.id,
                "tenant": row.tenant,
                "scopes": row.scopes,
                "groups": row.groups,
                "created": row.created,
                "revoked": row.revoked,
            }
            for row in rows
        ]
