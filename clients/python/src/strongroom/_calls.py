"""Every method's request, once for both clients. Named as the operations of the OpenAPI document, in snake case."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, TypeVar

from . import types as t
from ._core import Answered, Call, ListCall, parsed, retry_after_of, segment, segments

T = TypeVar("T")


@dataclass(frozen=True)
class RelayAnswer:
    """An answer of the bank link's own, whatever its status."""

    status: int
    body: Any = field(repr=False)
    """Its JSON, parsed."""
    content: bytes = field(repr=False)
    """Its JSON as it came, for instance for `json.loads(…, parse_float=Decimal)`."""
    retry_after: int | None = None
    """Seconds after which the bank link wants to be asked again, if it says so."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class UpstreamAnswer:
    """An answer of another API, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Found by their names in lower case."""
    content: bytes = field(repr=False)

    def json(self) -> Any:
        return parsed(self.content)


def _json(answer: Answered) -> Any:
    return parsed(answer.content)


def _nothing(answer: Answered) -> None:
    return None


def _relay(answer: Answered) -> RelayAnswer:
    return RelayAnswer(answer.status, parsed(answer.content), answer.content, retry_after_of(answer.headers))


def _upstream(answer: Answered) -> UpstreamAnswer:
    return UpstreamAnswer(answer.status, answer.headers, answer.content)


def _safe(method: str, path: str, body: Any = None, **more: Any) -> Call[Any]:
    """A request that may be repeated."""
    return Call(method, path, _json, repeatable=True, body=body, **more)


def _once(method: str, path: str, body: Any = None, decode: Callable[[Answered], T] = _json) -> Call[T]:
    """A request whose repeat would make another one, or answer 404 for what the first removed."""
    return Call(method, path, decode, repeatable=False, body=body)


def _list(path: str, key: str, query: Mapping[str, Any]) -> ListCall[Any, Any]:
    def page(cursor: str | None) -> Call[Any]:
        return _safe("GET", path, query=query if cursor is None else {**query, "cursor": cursor})

    def items(found: Any) -> list[Any]:
        return list(found[key])

    return ListCall(page, items)


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


# Connections


def create_connect_session(*, client_user_id: str) -> Call[t.SessionResponse]:
    """Makes a connect session, with which one browser hands in one user's results."""
    return _safe("POST", "/v1/connect-sessions", {"clientUserID": client_user_id})


def create_connection(
    result: t.LinkResult | Mapping[str, Any], *, client_user_id: str | None = None
) -> Call[t.Connection]:
    """Hands in a bank link's result, as it came. The same code gives the same connection, so that it is repeated until
    an answer comes. `pending` means received and safe: see `wait_for_connection`."""
    return _safe("POST", "/v1/connections", {**result, **_given(clientUserID=client_user_id)})


def import_connection(request: t.ImportRequest) -> Call[t.Connection]:
    """Moves a token in that the app holds already."""
    return _safe("POST", "/v1/connections/import", request)


def list_connections(
    *,
    client_user_id: str | None = None,
    status: t.ConnectionStatus | None = None,
    attention: bool | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> ListCall[t.ConnectionList, t.Connection]:
    """Connections, newest first."""
    query = _given(clientUserID=client_user_id, status=status, attention=attention, limit=limit, cursor=cursor)
    return _list("/v1/connections", "connections", query)


def get_connection(id: str) -> Call[t.Connection]:
    """A connection."""
    return _safe("GET", f"/v1/connections/{segment(id)}")


def reveal_token(id: str, *, reason: str) -> Call[t.RevealedToken]:
    """Reads a token in the clear, which goes into the audit trail with the reason. Prefer `call_dapi`."""
    return _safe("POST", f"/v1/connections/{segment(id)}/token", {"reason": reason})


def release_token(id: str) -> Call[t.Connection]:
    """Says that the reader of a token of Plaid's is done with it: it is replaced, if the app wants that."""
    return _safe("DELETE", f"/v1/connections/{segment(id)}/token")


def delink_connection(id: str) -> Call[t.Connection]:
    """Ends a connection by the user's wish. `revoking` is final for the app too."""
    return _safe("POST", f"/v1/connections/{segment(id)}/delink")


def invalidate_connection(
    id: str, *, reason: str, revoke_upstream: bool | None = None
) -> Call[t.Connection | t.AwaitingApproval]:
    """Ends a connection by the app's wish."""
    body = _given(reason=reason, revokeUpstream=revoke_upstream)
    return _safe("POST", f"/v1/connections/{segment(id)}/invalidate", body)


def clear_attention(id: str) -> Call[t.Connection]:
    """Says that the user has put right what kept the connection from being used."""
    return _safe("DELETE", f"/v1/connections/{segment(id)}/attention")


def call_dapi(id: str, path: str, body: Mapping[str, Any] | str | bytes | None = None) -> Call[RelayAnswer]:
    """Calls Dapi on a connection's behalf, such as `call_dapi(id, "data/accounts/get")`. Returns Dapi's answer, refusals
    included; raises a problem if Strongroom refuses. It is never sent again if it may have arrived."""
    return _relayed(f"/v1/connections/{segment(id)}/dapi/{segments(path)}", body)


def call_plaid(id: str, path: str, body: Mapping[str, Any] | str | bytes | None = None) -> Call[RelayAnswer]:
    """Calls Plaid on a connection's behalf, such as `call_plaid(id, "accounts/get")`; see `call_dapi`."""
    return _relayed(f"/v1/connections/{segment(id)}/plaid/{segments(path)}", body)


def create_plaid_link_token(request: Mapping[str, Any]) -> Call[RelayAnswer]:
    """Makes a `link_token` for Plaid's Link; the body is Plaid's without `client_id` and `secret`,
    with `clientUserID`."""
    return _relayed("/v1/plaid/link-token", request)


def _relayed(path: str, body: Mapping[str, Any] | str | bytes | None) -> Call[RelayAnswer]:
    return Call("POST", path, _relay, repeatable=False, relayed=True, body={} if body is None else body)


# Users


def erase_user(client_user_id: str) -> Call[t.ErasureReceipt | t.AwaitingApproval]:
    """Revokes everything of a user's and destroys it; see `get_erasure` for its end."""
    return _safe("DELETE", f"/v1/users/{segment(client_user_id)}")


def get_erasure(id: str) -> Call[t.ErasureReceipt]:
    """An erasure, with its receipt once it is through."""
    return _safe("GET", f"/v1/users/erasures/{segment(id)}")


# Events


def list_events(*, after: str | None = None, limit: int | None = None, wait: int | None = None) -> Call[t.EventList]:
    """The app's events, oldest first. Go on with `after=page["nextCursor"]`, which is never `None`; with `wait` the
    answer is held for so many seconds, up to 30, until there is an event."""
    return _safe("GET", "/v1/events", query=_given(after=after, limit=limit, wait=wait))


def create_webhook(request: t.WebhookRequest) -> Call[t.CreatedWebhook]:
    """Adds a webhook. Its secret is in this answer and nowhere else."""
    return _once("POST", "/v1/admin/webhooks", request)


def list_webhooks() -> Call[t.WebhookList]:
    """The app's webhooks."""
    return _safe("GET", "/v1/admin/webhooks")


def get_webhook(id: str) -> Call[t.Webhook]:
    """A webhook, and how it fares."""
    return _safe("GET", f"/v1/admin/webhooks/{segment(id)}")


def update_webhook(id: str, change: t.WebhookChange) -> Call[t.Webhook]:
    """Changes a webhook; what is left out stays."""
    return _safe("PATCH", f"/v1/admin/webhooks/{segment(id)}", change)


def delete_webhook(id: str) -> Call[None]:
    """Removes a webhook with its deliveries."""
    return _once("DELETE", f"/v1/admin/webhooks/{segment(id)}", decode=_nothing)


def create_webhook_secret(id: str, request: t.AddWebhookSecret | None = None) -> Call[t.CreatedWebhookSecret]:
    """Gives a webhook its second live secret, which is in this answer alone."""
    return _once("POST", f"/v1/admin/webhooks/{segment(id)}/secrets", request or {})


def delete_webhook_secret(id: str, secret_id: str) -> Call[None]:
    """Ends a secret of a webhook."""
    return _once("DELETE", f"/v1/admin/webhooks/{segment(id)}/secrets/{segment(secret_id)}", decode=_nothing)


def test_webhook(id: str) -> Call[t.WebhookTest]:
    """Sends a test event to a webhook; `list_webhook_deliveries` shows how it went."""
    return _once("POST", f"/v1/admin/webhooks/{segment(id)}/test")


def replay_webhook(id: str, request: t.ReplayRequest) -> Call[t.Replay]:
    """Sends the events of a range of time to a webhook once more."""
    return _once("POST", f"/v1/admin/webhooks/{segment(id)}/replay", request)


def list_webhook_deliveries(
    id: str, *, limit: int | None = None, cursor: str | None = None
) -> ListCall[t.WebhookDeliveryList, t.WebhookDelivery]:
    """A webhook's deliveries, the newest event first."""
    query = _given(limit=limit, cursor=cursor)
    return _list(f"/v1/admin/webhooks/{segment(id)}/deliveries", "deliveries", query)


# Other APIs


def get_upstream_token(name: str) -> Call[t.UpstreamTokenResponse]:
    """A token of another API, from Strongroom's cache. Take it anew for each piece of work."""
    return _safe("POST", f"/v1/upstreams/{segment(name)}/token")


def _through(
    method: str, name: str, path: str, body: Any, query: Mapping[str, Any] | None, headers: Mapping[str, str] | None
) -> Call[UpstreamAnswer]:
    whole = f"/v1/upstreams/{segment(name)}/proxy/{segments(path)}"
    return Call(
        method, whole, _upstream, repeatable=False, relayed=True, body=body, query=query or {}, headers=headers or {}
    )


def get_through_upstream(
    name: str, path: str, *, query: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Call[UpstreamAnswer]:
    """Calls another API. Returns its answer, whatever the status; raises a problem if Strongroom refuses."""
    return _through("GET", name, path, None, query, headers)


def delete_through_upstream(
    name: str,
    path: str,
    body: Any = None,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call[UpstreamAnswer]:
    """As `get_through_upstream`, with DELETE."""
    return _through("DELETE", name, path, body, query, headers)


def post_through_upstream(
    name: str,
    path: str,
    body: Any = None,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call[UpstreamAnswer]:
    """As `get_through_upstream`, with POST."""
    return _through("POST", name, path, body, query, headers)


def put_through_upstream(
    name: str,
    path: str,
    body: Any = None,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call[UpstreamAnswer]:
    """As `get_through_upstream`, with PUT."""
    return _through("PUT", name, path, body, query, headers)


def patch_through_upstream(
    name: str,
    path: str,
    body: Any = None,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call[UpstreamAnswer]:
    """As `get_through_upstream`, with PATCH."""
    return _through("PATCH", name, path, body, query, headers)


# Administration


def create_client(request: t.CreateClient) -> Call[t.CreatedClient]:
    """Makes a client; its secret is in this answer alone."""
    return _once("POST", "/v1/admin/clients", request)


def list_clients(*, limit: int | None = None, cursor: str | None = None) -> ListCall[t.ClientList, t.Client]:
    """The app's clients."""
    return _list("/v1/admin/clients", "clients", _given(limit=limit, cursor=cursor))


def get_client(client_id: str) -> Call[t.ClientWithSecrets]:
    """A client, with its secrets' ids and times."""
    return _safe("GET", f"/v1/admin/clients/{segment(client_id)}")


def update_client(client_id: str, change: t.ChangeClient) -> Call[t.ClientWithSecrets]:
    """Changes a client."""
    return _safe("PATCH", f"/v1/admin/clients/{segment(client_id)}", change)


def delete_client(client_id: str) -> Call[None]:
    """Ends a client."""
    return _once("DELETE", f"/v1/admin/clients/{segment(client_id)}", decode=_nothing)


def create_client_secret(client_id: str, request: t.AddSecret | None = None) -> Call[t.CreatedSecret]:
    """Gives a client its second live secret, which is in this answer alone."""
    return _once("POST", f"/v1/admin/clients/{segment(client_id)}/secrets", request or {})


def delete_client_secret(client_id: str, secret_id: str) -> Call[None]:
    """Ends a secret."""
    path = f"/v1/admin/clients/{segment(client_id)}/secrets/{segment(secret_id)}"
    return _once("DELETE", path, decode=_nothing)


def search_connections(
    *,
    client_user_id: str | None = None,
    status: t.ConnectionStatus | None = None,
    attention: bool | None = None,
    created_before: str | None = None,
    created_after: str | None = None,
    text: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> ListCall[t.AdminConnectionList, t.AdminConnection]:
    """Connections across users. Times are RFC 3339."""
    query = _given(
        clientUserID=client_user_id,
        status=status,
        attention=attention,
        createdBefore=created_before,
        createdAfter=created_after,
        text=text,
        limit=limit,
        cursor=cursor,
    )
    return _list("/v1/admin/connections", "connections", query)


def get_connection_history(id: str) -> Call[t.AdminConnectionWithHistory]:
    """A connection with its events in the audit trail."""
    return _safe("GET", f"/v1/admin/connections/{segment(id)}")


def get_connection_stats() -> Call[t.ConnectionStats]:
    """How many connections there are, by status and age."""
    return _safe("GET", "/v1/admin/stats")


def create_revocation(
    request: t.BulkRevocationRequest, *, idempotency_key: str | None = None
) -> Call[t.BulkRevocation | t.DryRun | t.AwaitingApproval]:
    """Revokes many connections. An `Idempotency-Key` is made if none is given, so that a repeat revokes once."""
    headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
    return _safe("POST", "/v1/admin/revocations", request, headers=headers)


def list_revocations(
    *, limit: int | None = None, cursor: str | None = None
) -> ListCall[t.BulkRevocationList, t.BulkRevocation]:
    """Bulk revocations, newest first."""
    return _list("/v1/admin/revocations", "revocations", _given(limit=limit, cursor=cursor))


def get_revocation(id: str) -> Call[t.BulkRevocation]:
    """A bulk revocation and how far it is."""
    return _safe("GET", f"/v1/admin/revocations/{segment(id)}")


def pause_revocation(id: str) -> Call[t.BulkRevocation]:
    """Pauses a bulk revocation."""
    return _once("POST", f"/v1/admin/revocations/{segment(id)}/pause")


def resume_revocation(id: str) -> Call[t.BulkRevocation]:
    """Goes on with a bulk revocation."""
    return _once("POST", f"/v1/admin/revocations/{segment(id)}/resume")


def cancel_revocation(id: str) -> Call[t.BulkRevocation | t.AwaitingApproval]:
    """Ends a bulk revocation before its end."""
    return _once("POST", f"/v1/admin/revocations/{segment(id)}/cancel")


def list_approvals(
    *, limit: int | None = None, cursor: str | None = None
) -> ListCall[t.ApprovalList, t.Approval]:
    """Requests that wait for a second person, or did, newest first."""
    return _list("/v1/admin/approvals", "approvals", _given(limit=limit, cursor=cursor))


def get_approval(id: str) -> Call[t.Approval]:
    """A request that waits for a second person, or did."""
    return _safe("GET", f"/v1/admin/approvals/{segment(id)}")


def withdraw_approval(id: str) -> Call[t.Approval]:
    """Withdraws a request that the same client made."""
    return _once("POST", f"/v1/admin/approvals/{segment(id)}/withdraw")


def create_upstream(request: t.UpstreamRequest) -> Call[t.Upstream]:
    """Adds another API."""
    return _once("POST", "/v1/admin/upstreams", request)


def list_upstreams() -> ListCall[t.UpstreamList, t.Upstream]:
    """The app's other APIs."""
    return _list("/v1/admin/upstreams", "upstreams", {})


def get_upstream(name: str) -> Call[t.Upstream]:
    """Another API, and how its token stands."""
    return _safe("GET", f"/v1/admin/upstreams/{segment(name)}")


def update_upstream(name: str, change: t.UpstreamChange) -> Call[t.Upstream]:
    """Changes another API's settings."""
    return _safe("PATCH", f"/v1/admin/upstreams/{segment(name)}", change)


def delete_upstream(name: str) -> Call[None]:
    """Removes another API."""
    return _once("DELETE", f"/v1/admin/upstreams/{segment(name)}", decode=_nothing)


def list_audit_events(
    *,
    action: str | None = None,
    client_user_id: str | None = None,
    connection: str | None = None,
    client_id: str | None = None,
    actor: str | None = None,
    before: str | None = None,
    after: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> ListCall[t.AuditEventList, t.AuditEvent]:
    """The audit trail, newest first. Times are RFC 3339."""
    query = _given(
        action=action,
        clientUserID=client_user_id,
        connection=connection,
        clientID=client_id,
        actor=actor,
        before=before,
        after=after,
        limit=limit,
        cursor=cursor,
    )
    return _list("/v1/admin/audit-events", "events", query)


def get_audit_checkpoint() -> Call[t.AuditCheckpoint]:
    """A signed checkpoint of the audit trail."""
    return _safe("GET", "/v1/admin/audit-checkpoint")
