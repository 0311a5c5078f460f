//! Webhooks: which fail, their deliveries, and sending a range of events again.

pub mod page;
pub mod routes;

use crate::common::ids::{AppId, WebhookId};
use crate::database::Conn;
use crate::events::endpoints::{self, Webhook, WebhookDelivery};

/// Deliveries on a page.
const ON_A_PAGE: i64 = 100;

/// A webhook with its deliveries.
#[derive(Debug)]
pub struct Shown {
    /// The webhook.
    pub webhook: Webhook,
    /// Its deliveries, newest first.
    pub deliveries: Vec<WebhookDelivery>,
    /// The position before which the next page starts.
    pub next: Option<i64>,
}

/// Reads a webhook of the app with a page of its deliveries.
pub async fn read(
    conn: &mut Conn,
    app: AppId,
    id: WebhookId,
    before: Option<i64>,
) -> sqlx::Result<Option<Shown>> {
    let Some(webhook) = endpoints::find(conn, app, id).await? else { return Ok(None) };
    let deliveries = endpoints::deliveries(conn, app, id, before, ON_A_PAGE).await?;
    let is_full = i64::try_from(deliveries.len()).is_ok_and(|count| count == ON_A_PAGE);
    let next = deliveries.last().filter(|_| is_full).map(|delivery| delivery.position);
    let deliveries = deliveries.into_iter().map(WebhookDelivery::from).collect();
    Ok(Some(Shown { webhook, deliveries, next }))
}
