//! The data of events, by the functions that render the resources for `GET`.
//!
//! What may change after the commit is rendered from the snapshot that the trigger took; a finished bulk revocation and
//! an ended erasure do not change, so they are read.

use serde::Serialize;
use serde_json::json;

use super::endpoints::Webhook;
use super::kind::EventType;
use super::store::Taken;
use crate::common::ids::AppId;
use crate::connections::erasure::Receipt;
use crate::connections::query::store::snapshot;
use crate::connections::{bulk_revocation, erasure};
use crate::database::Conn;
use crate::oauth::secrets::Shown;
use crate::oauth::{self, Issuer};

/// Renders the data of each event as JSON.
pub(super) async fn data(
    conn: &mut Conn,
    issuer: &Issuer,
    app: AppId,
    taken: &[Taken],
) -> sqlx::Result<Vec<String>> {
    let mut rendered = Vec::with_capacity(taken.len());
    for event in taken {
        let data = if event.kind.starts_with("connection.") {
            of_connection(event)
        } else {
            other(conn, issuer, app, event).await?
        };
        rendered.push(data.unwrap_or_else(|| unrendered(event)));
    }
    Ok(rendered)
}

fn of_connection(event: &Taken) -> Option<String> {
    text(&snapshot::connection(event.subject_id()?, event.snapshot.as_deref()?)?)
}

/// Renders what is not a connection.
async fn other(
    conn: &mut Conn,
    issuer: &Issuer,
    app: AppId,
    event: &Taken,
) -> sqlx::Result<Option<String>> {
    Ok(match EventType::parse(&event.kind) {
        Some(EventType::UserErased) => match event.subject_id() {
            Some(id) => erasure::find(conn, app, id.into())
                .await?
                .and_then(|erasure| Receipt::of(issuer, &erasure))
                .as_ref()
                .and_then(text),
            None => None,
        },
        Some(EventType::RevocationFinished) => match event.subject_id() {
            Some(id) => {
                bulk_revocation::store::find(conn, app, id.into()).await?.as_ref().and_then(text)
            }
            None => None,
        },
        Some(EventType::ClientDisabled) => event
            .snapshot()
            .as_ref()
            .and_then(oauth::snapshot::client)
            .and_then(|(client, secrets)| text(&Shown { client: &client, secrets: &secrets })),
        Some(EventType::WebhookDisabled | EventType::WebhookTest) => {
            event.snapshot().as_ref().and_then(Webhook::of_snapshot).as_ref().and_then(text)
        }
        _ => None,
    })
}

fn text<T: Serialize>(resource: &T) -> Option<String> {
    serde_json::to_string(resource).ok()
}

/// What an event shows if its resource cannot be rendered, such as one of a newer release: one row must not keep the
/// app's others back.
fn unrendered(event: &Taken) -> String {
    tracing::error!(kind = %event.kind, subject = %event.subject, "an event's resource could not be rendered");
    json!({ "id": event.subject }).to_string()
}
