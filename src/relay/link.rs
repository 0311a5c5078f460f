//! Plaid's links: what a `/link/token/create` is completed with, for whom a link token was created, and which of them led
//! to a code.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use super::body::Fields;
use super::call::{Answered, Body};
use super::paths::LINK_TOKEN_GET;
use super::tokenless;
use crate::apps;
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::lenient_json::{self, Object};
use crate::common::trace::TraceContext;
use crate::connections::ConnectionError;
use crate::connections::link_tokens::{self, KnownLinkToken, LinkToken};
use crate::http::problem::Problem;
use crate::providers::{AccessCode, Provider};

/// Link tokens about which Plaid is asked for one code, the newest first.
const MOST_LOOK_UPS: i64 = 20;
/// Look-ups at the same time.
const LOOK_UPS_AT_ONCE: usize = 4;
/// Time limit of all look-ups for one code.
const LOOK_UP_FOR: Duration = Duration::from_secs(20);

/// Returns the request's own `user.client_user_id`.
pub(super) fn client_user_id(fields: &Fields) -> Result<Option<String>, Problem> {
    Ok(user(fields)?.text("client_user_id"))
}

fn user(fields: &Fields) -> Result<Fields, Problem> {
    match fields.value("user") {
        None => Ok(Fields::default()),
        Some(user) if user.get().starts_with('{') => Fields::read(user.get().as_bytes()),
        Some(_) => Err(Problem::invalid_field("user", "must be a JSON object")),
    }
}

/// Completes a request for a link token: with the user, and with Strongroom's address for webhooks, if the caller left
/// them out.
pub(super) async fn complete(
    context: &Context,
    app: AppId,
    fields: &mut Fields,
    client_user_id: &str,
) -> Result<(), Problem> {
    let mut user = user(fields)?;
    if user.value("client_user_id").is_none() {
        user.set("client_user_id", &client_user_id).map_err(Problem::internal)?;
        fields.set("user", &user).map_err(Problem::internal)?;
    }
    if fields.value("webhook").is_none()
        && let Some(webhook) = webhook(context, app).await?
    {
        fields.set("webhook", &webhook).map_err(Problem::internal)?;
    }
    Ok(())
}

/// Returns the address for Plaid's webhooks about an app's items. Plaid calls https alone; a sandbox on this machine calls
/// http too.
async fn webhook(context: &Context, app: AppId) -> Result<Option<String>, ConnectionError> {
    let url = &context.public_url;
    let plaid = context.connections.providers.settings(Provider::Plaid);
    if !url.starts_with("https://") && !plaid.is_on_this_machine() {
        return Ok(None);
    }
    let name = apps::name(&mut context.connections.pool.acquire().await?, app).await?;
    Ok(name.map(|name| format!("{url}/hooks/plaid/{name}")))
}

/// Stores for which user an answer's link token was created.
///
/// # Errors
/// If the user is being erased, or by the database.
pub(super) async fn remember(
    context: &Context,
    app: AppId,
    client_user_id: &str,
    answered: &Answered,
) -> Result<(), Problem> {
    let Body::Whole(body) = &answered.body else { return Ok(()) };
    let text = lenient_json::text(body);
    let object = Object::read(&text, &["link_token", "expiration"]);
    let object = object.filter(|_| (200..300).contains(&answered.status));
    let Some(object) = object else { return Ok(()) };
    let Some(token) = object.exact("link_token").map(LinkToken::new) else { return Ok(()) };
    let expires_at = object.exact("expiration");
    let expires_at = expires_at.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
    let context = &context.connections;
    if link_tokens::remember(context, app, client_user_id, &token, expires_at).await? {
        Ok(())
    } else {
        Err(Problem::user_being_erased())
    }
}

/// For whom a link that led to a code was begun.
#[derive(Debug)]
pub(super) enum Owner {
    /// The app's own name for the user.
    Known(String),
    /// None of the app's newest link tokens led to the code.
    Unknown,
    /// Plaid did not answer every question, so it is not known whether one did.
    Unanswered,
}

/// Asks Plaid which of the app's newest link tokens led to a code.
pub(super) async fn owner_of(
    context: &Context,
    actor: &Actor,
    app: AppId,
    code: &AccessCode,
    trace: &TraceContext,
) -> Result<Owner, ConnectionError> {
    let known = link_tokens::newest(&context.connections, app, MOST_LOOK_UPS).await?;
    let asked = known.into_iter().map(|known| led_to(context, actor, app, known, code, trace));
    let mut asked = std::pin::pin!(stream::iter(asked).buffered(LOOK_UPS_AT_ONCE));
    let asking = async {
        let mut owner = Owner::Unknown;
        while let Some(found) = asked.next().await {
            match found {
                Owner::Known(_) => return found,
                Owner::Unanswered => owner = found,
                Owner::Unknown => {}
            }
        }
        owner
    };
    Ok(tokio::time::timeout(LOOK_UP_FOR, asking).await.unwrap_or(Owner::Unanswered))
}

/// Asks whether this link token led to the code.
async fn led_to(
    context: &Context,
    actor: &Actor,
    app: AppId,
    known: KnownLinkToken,
    code: &AccessCode,
    trace: &TraceContext,
) -> Owner {
    let mut fields = Fields::default();
    if fields.set("link_token", &known.token.expose()).is_err() {
        return Owner::Unanswered;
    }
    let fields = fields.passed(Provider::Plaid, false);
    let actor = actor.clone();
    let called = tokenless::call(context, actor, app, &LINK_TOKEN_GET, fields, trace.clone()).await;
    let Ok(Ok(Answered { status, body: Body::Whole(body), .. })) = called else {
        return Owner::Unanswered;
    };
    match status {
        200..300 if names(&body, code) => Owner::Known(known.client_user_id),
        // Plaid knows this link token no more.
        200..300 | 400..=407 | 409..=428 => Owner::Unknown,
        _ => Owner::Unanswered,
    }
}

/// Returns whether an answer of `/link/token/get` names a code as a result of the link.
fn names(body: &[u8], code: &AccessCode) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_it = |at: Option<&Value>| at.and_then(Value::as_str) == Some(code.expose());
    let each = |at: Option<&Value>| at.and_then(Value::as_array).cloned().unwrap_or_default();
    each(answer.get("link_sessions")).iter().any(|session| {
        is_it(session.pointer("/on_success/public_token"))
            || each(session.pointer("/results/item_add_results"))
                .iter()
                .any(|added| is_it(added.get("public_token")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_in_either_place_of_an_answer() {
        let code = AccessCode::new("public-sandbox-1".to_owned());
        for body in [
            r#"{"link_sessions":[{},{"on_success":{"public_token":"public-sandbox-1"}}]}"#,
            r#"{"link_sessions":[{"results":{"item_add_results":[{},{"public_token":"public-sandbox-1"}]}}]}"#,
        ] {
            assert!(names(body.as_bytes(), &code), "{body}");
        }
        for body in [
            "",
            "[]",
            r#"{"link_sessions":{}}"#,
            r#"{"link_sessions":[{"on_success":null,"results":null}]}"#,
            r#"{"link_sessions":[{"on_success":{"public_token":"public-sandbox-2"}}]}"#,
            r#"{"link_sessions":[{"on_exit":{"public_token":"public-sandbox-1"}}]}"#,
        ] {
            assert!(!names(body.as_bytes(), &code), "{body}");
        }
    }

    #[test]
    fn the_user_of_a_request_is_an_object_that_may_be_absent() {
        let of = |json: &str| client_user_id(&Fields::read(json.as_bytes()).unwrap());
        assert_eq!(of(r#"{"user":{"client_user_id":"ada"}}"#).unwrap().as_deref(), Some("ada"));
        for json in ["{}", r#"{"user":null}"#, r#"{"user":{"client_user_id":null}}"#] {
            assert_eq!(of(json).unwrap(), None, "{json}");
        }
        for json in [r#"{"user":"ada"}"#, r#"{"user":[]}"#, r#"{"user":{"a":1,"a":2}}"#] {
            assert!(of(json).is_err(), "{json}");
        }
    }
}
