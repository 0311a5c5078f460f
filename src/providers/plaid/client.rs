//! The calls to Plaid.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{DetailsError, ItemDetails, KeyAnswer, wire};
use crate::common::trace::TraceContext;
use crate::providers::call::CallBody;
use crate::providers::transport::{Link, Outgoing, sensitive};
use crate::providers::{
    AccessToken, AppCredentials, Call, CallAnswer, CallLost, Exchange, ExchangeAnswer, Revoke,
    RevokeAnswer,
};

/// The version of Plaid's API that is spoken here.
const VERSION: HeaderValue = HeaderValue::from_static("2020-09-14");

/// Exchanges a `public_token` for an access token: `POST /item/public_token/exchange`.
pub async fn exchange(link: Link<'_>, exchange: &Exchange<'_>) -> ExchangeAnswer {
    #[derive(serde::Serialize)]
    struct Request<'a> {
        public_token: &'a str,
    }
    let Exchange { app, code, trace, .. } = exchange;
    let body = Request { public_token: code.expose() };
    let outgoing = Outgoing {
        name: "plaid exchange",
        path: "/item/public_token/exchange",
        headers: credentials(app),
        body: &body,
        trace,
        limit: link.settings.exchange_timeout,
    };
    // Each exchange has a connection of its own (ADR 16).
    match link.transport.post_exchange(link.permit, &outgoing).await {
        Ok(received) => wire::exchange(&received, &[app.app_secret.expose(), code.expose()]),
        Err(none) => none.into(),
    }
}

#[derive(serde::Serialize)]
struct OfToken<'a> {
    access_token: &'a str,
}

/// Replaces a token by another of the same item: `POST /item/access_token/invalidate`. The new one exists once, as an
/// exchange's does.
pub async fn invalidate(
    link: Link<'_>,
    app: &AppCredentials,
    token: &AccessToken,
    trace: &TraceContext,
) -> ExchangeAnswer {
    let outgoing = Outgoing {
        name: "plaid invalidate",
        path: "/item/access_token/invalidate",
        headers: credentials(app),
        body: &OfToken { access_token: token.expose() },
        trace,
        limit: link.settings.exchange_timeout,
    };
    match link.transport.post_on_fresh_connection(link.permit, &outgoing).await {
        Ok(received) => wire::invalidated(&received, &[app.app_secret.expose(), token.expose()]),
        Err(none) => none.into(),
    }
}

/// Removes an item, and with it its token: `POST /item/remove`.
pub async fn remove(link: Link<'_>, revoke: &Revoke<'_>) -> RevokeAnswer {
    let outgoing = Outgoing {
        name: "plaid remove",
        path: "/item/remove",
        headers: credentials(revoke.app),
        body: &OfToken { access_token: revoke.token.expose() },
        trace: revoke.trace,
        limit: link.settings.call_timeout,
    };
    match link.transport.post(link.permit, &outgoing).await {
        Ok(received) => wire::removed(&received, link.settings, revoke),
        Err(none) => RevokeAnswer::Failed { what: none.what(), retry_after: None },
    }
}

/// Reads an item's institution and accounts: `POST /accounts/get`.
pub async fn details(
    link: Link<'_>,
    app: &AppCredentials,
    token: &AccessToken,
    trace: &TraceContext,
) -> Result<ItemDetails, DetailsError> {
    let outgoing = Outgoing {
        name: "plaid details",
        path: "/accounts/get",
        headers: credentials(app),
        body: &OfToken { access_token: token.expose() },
        trace,
        limit: link.settings.call_timeout,
    };
    let received = link.transport.post(link.permit, &outgoing).await;
    let received = received.map_err(|none| DetailsError::unanswered(none.what()))?;
    let success = received.status.is_success();
    ItemDetails::read(success, &received.body).ok_or_else(|| {
        let error = wire::error(&received, &[app.app_secret.expose(), token.expose()]);
        let what =
            error.as_ref().map_or_else(|| received.unreadable().to_owned(), ToString::to_string);
        let conclusive = received.may_be_conclusive() && !success;
        let kind = error.filter(|_| conclusive).map(|error| error.code);
        DetailsError { what, kind, status: Some(received.status.as_u16()), dead: false }
    })
}

/// How long the look-up of a webhook key may take: Plaid waits as long for the answer to the webhook.
const KEY_TIMEOUT: Duration = Duration::from_secs(8);

/// Looks up a key that signs webhooks: `POST /webhook_verification_key/get`.
pub async fn webhook_key(
    link: Link<'_>,
    app: &AppCredentials,
    key_id: &str,
    trace: &TraceContext,
) -> KeyAnswer {
    #[derive(serde::Serialize)]
    struct Request<'a> {
        key_id: &'a str,
    }
    let outgoing = Outgoing {
        name: "plaid webhook_key",
        path: "/webhook_verification_key/get",
        headers: credentials(app),
        body: &Request { key_id },
        trace,
        limit: link.settings.call_timeout.min(KEY_TIMEOUT),
    };
    match link.transport.post(link.permit, &outgoing).await {
        Ok(received) => wire::webhook_key(&received, key_id, &[app.app_secret.expose()]),
        Err(none) => KeyAnswer::Unanswered(none.what()),
    }
}

/// Makes a call on a connection's behalf, or on the app's own.
pub async fn call(link: Link<'_>, call: &Call<'_>) -> Result<CallAnswer, CallLost> {
    let token = call.token.map(|token| ("access_token", token.expose()));
    let outgoing = Outgoing {
        name: "plaid call",
        path: &format!("/{}", call.path),
        headers: credentials(call.app),
        body: &CallBody { fields: call.fields, inserted: [token] },
        trace: call.trace,
        limit: call.limit,
    };
    link.transport.call(link.permit, &outgoing).await
}

/// The headers that carry the app's credentials. Those that no header can carry are refused when they are set.
fn credentials(app: &AppCredentials) -> HeaderMap {
    let client_id = HeaderName::from_static("plaid-client-id");
    let secret = HeaderName::from_static("plaid-secret");
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("plaid-version"), VERSION);
    headers.extend(HeaderValue::from_str(&app.app_key).ok().map(|value| (client_id, value)));
    headers.extend(sensitive(app.app_secret.expose()).map(|value| (secret, value)));
    headers
}
