//! The calls to Dapi.

use reqwest::header::{AUTHORIZATION, HeaderMap};

use super::wire;
use crate::providers::call::CallBody;
use crate::providers::transport::{Link, Outgoing, sensitive};
use crate::providers::{
    AccessToken, Call, CallAnswer, CallLost, Exchange, ExchangeAnswer, Revoke, RevokeAnswer,
    UserSecret,
};

/// Exchanges a code for a token: `POST /auth/ExchangeToken`.
pub async fn exchange(link: Link<'_>, exchange: &Exchange<'_>) -> ExchangeAnswer {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        app_secret: &'a str,
        access_code: &'a str,
        #[serde(rename = "connectionID")]
        connection_id: &'a str,
    }
    let Exchange { app, code, login_id, trace } = exchange;
    let body = Request {
        app_secret: app.app_secret.expose(),
        access_code: code.expose(),
        connection_id: login_id.unwrap_or_default(),
    };
    let outgoing = Outgoing {
        name: "dapi exchange",
        path: "/auth/ExchangeToken",
        headers: HeaderMap::new(),
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

/// Delinks a token: `POST /users/DelinkUser`, or the configured path.
pub async fn delink(link: Link<'_>, path: &str, revoke: &Revoke<'_>) -> RevokeAnswer {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        app_secret: &'a str,
        user_secret: &'a str,
    }
    let Revoke { app, token, user_secret, proven, trace } = *revoke;
    let user_secret = user_secret.map_or("", UserSecret::expose);
    let body = Request { app_secret: app.app_secret.expose(), user_secret };
    let headers = authorization(Some(token));
    let limit = link.settings.call_timeout;
    let outgoing = Outgoing { name: "dapi delink", path, headers, body: &body, trace, limit };
    match link.transport.post(link.permit, &outgoing).await {
        Ok(received) => {
            let secrets = [app.app_secret.expose(), user_secret, token.expose()];
            wire::delink(&received, &link.settings.gone_types, proven, &secrets)
        }
        Err(none) => RevokeAnswer::Failed { what: none.what(), retry_after: None },
    }
}

/// Makes a call on a connection's behalf.
pub async fn call(link: Link<'_>, call: &Call<'_>) -> Result<CallAnswer, CallLost> {
    let app_key = call.with_app_key.then_some(("appKey", call.app.app_key.as_str()));
    let user_secret = call.user_secret.map(|secret| ("userSecret", secret.expose()));
    let app_secret = ("appSecret", call.app.app_secret.expose());
    let inserted = [Some(app_secret), app_key, user_secret];
    let outgoing = Outgoing {
        name: "dapi call",
        path: &format!("/{}", call.path),
        headers: authorization(call.token),
        body: &CallBody { fields: call.fields, inserted },
        trace: call.trace,
        limit: call.limit,
    };
    link.transport.call(link.permit, &outgoing).await
}

/// The header that carries the token. Tokens that no header can carry are refused when they come in.
fn authorization(token: Option<&AccessToken>) -> HeaderMap {
    let value = token.and_then(|token| sensitive(&format!("Bearer {}", token.expose())));
    value.map(|value| (AUTHORIZATION, value)).into_iter().collect()
}
