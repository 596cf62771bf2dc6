"""The line to OpenBao or Vault: one call under one token, and what each way of failing means.

Rules kept here: tokens come from files and are read on every call; nothing is taken from the environment, no proxy, no
token, no certificate; HTTPS is believed by the Zone's own root alone; a call that the everyday token may not make is
made with the operator's where there is one; what went wrong is named without quoting the server.
"""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultError
from requests.adapters import HTTPAdapter

from residency.errors import KeyRefusedError, KeyringError
from residency.outlets.connect import CONNECT_SECONDS
from residency.outlets.keys.disk import secret
from residency.outlets.tls import explain


class MissingError(KeyringError):
    """The server has no such key."""


class _ForbiddenError(KeyringError):
    """The token may not do that."""


class BaoLine:
    """Calls to the server at `url`, from any thread. `token` and `operator` are files; `within` is in seconds."""

    def __init__(
        self,
        site: str,
        url: str,
        token: Path,
        operator: Path | None,
        *,
        namespace: str,
        context: ssl.SSLContext | None,
        within: float,
    ) -> None:
        self.site = site
        self._url = url
        self._token = token
        self._operator = operator
        self._namespace = namespace
        self._context = context
        self._within = within
        self._local = threading.local()

    @property
    def has_operator(self) -> bool:
        """Say whether the operator's token is at hand."""
        return self._operator is not None

    def transit(self, call: Callable[[Any], Any], *, operator: bool = False) -> Any:
        """Call Transit about a key; with the operator's token where it is needed, or where the everyday one may not."""
        if operator and self._operator is None:
            raise KeyringError(
                f"rotating and destroying at {self.site} needs the operator's token",
                hint="name its file as operator_token_file of the keys in the fleet file",
            )
        try:
            return self.call(lambda client: call(client.secrets.transit), operator=operator)
        except _ForbiddenError:
            if operator or self._operator is None:
                raise
            return self.call(lambda client: call(client.secrets.transit), operator=True)

    def call(self, call: Callable[[Any], Any], *, operator: bool = False) -> Any:
        """Make one call. Raises `KeyRefusedError` for what does not open, else `KeyringError`."""
        which = self._operator if operator and self._operator else self._token
        client = self._client()
        client.token = secret(which, f"the {'operator ' if operator else ''}token of {self.site}")
        try:
            return call(client)
        except InvalidPath as error:
            raise MissingError(f"the key server of {self.site} knows no such path", hint="check mount") from error
        except Forbidden as error:
            raise _ForbiddenError(
                f"the key server of {self.site} does not permit that to our token",
                hint="see docs/sealing.md for what each token may do, and whether it has run out",
            ) from error
        except InvalidRequest as error:
            told = " ".join(_complaints(error))
            if "not found" in told:
                raise MissingError(f"the key server of {self.site} has no such key", hint="restore it") from error
            raise KeyRefusedError(f"the key server of {self.site} refuses a wrapped key or a version") from error
        except VaultError as error:
            raise KeyringError(
                f"the key server of {self.site} fails: {type(error).__name__}", hint="see whether it is sealed or busy"
            ) from error
        except requests.RequestException as error:
            cause, remedy = explain(error) or ("does not answer", "see whether it runs and may be reached from here")
            raise KeyringError(f"the key server of {self.site} {cause}", hint=remedy) from error
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise self.garbage() from error

    def _client(self) -> Any:
        # Of its own for each thread: a requests session is not meant for several.
        if not hasattr(self._local, "client"):
            session = requests.Session()
            session.trust_env = False
            session.mount("https://", _ZoneTls(self._context))
            self._local.client = hvac.Client(
                url=self._url,
                token="",
                session=session,
                verify=True,
                cert=None,
                namespace=self._namespace or None,
                timeout=(CONNECT_SECONDS, self._within),
                allow_redirects=False,
            )
        return self._local.client

    def results(self, reply: Any, count: int) -> list[dict[str, Any]]:
        """Read every item of a batch: one bad item may hide behind a good status."""
        try:
            results = reply["data"]["batch_results"]
            if len(results) != count or not all(isinstance(each, dict) for each in results):
                raise self.garbage()
        except (KeyError, TypeError) as error:
            raise self.garbage() from error
        if any(each.get("error") for each in results):
            raise KeyRefusedError("a wrapped key does not open in this context")
        return list(results)

    def garbage(self) -> KeyringError:
        """Give the error for an answer that is not what was asked for."""
        return KeyringError(
            f"the key server of {self.site} answers what was not asked for", hint="see what stands at that address"
        )


class _ZoneTls(HTTPAdapter):
    """HTTPS under one TLS context alone; requests itself would add the roots of certifi to it on every connection."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context if context is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, True, None)
        return host, {"cert_reqs": pool["cert_reqs"]}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"


def _complaints(error: InvalidRequest) -> list[str]:
    """Give every complaint of a refused request, those of single items too."""
    told = [str(each) for each in error.errors or ()]
    body = error.json if isinstance(error.json, dict) else {}
    data = body.get("data")
    items = data.get("batch_results") if isinstance(data, dict) else None
    return told + [str(each.get("error", "")) for each in items or () if isinstance(each, dict)]


def body_of(response: Any) -> dict[str, Any]:
    """Give a response's JSON object, or an empty one."""
    try:
        body = response.json()
    except (ValueError, AttributeError):
        return {}
    return body if isinstance(body, dict) else {}
