//! The log of a webhook's deliveries, as it is shown. No I/O.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::store::Delivery;
use crate::common::ids::EventId;
use crate::events::kind::EventType;

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// It is attempted again.
    Pending,
    /// It was answered with 2xx.
    Delivered,
    /// Nothing but failures for three days.
    Failed,
}

/// One event's delivery to a webhook.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDelivery {
    /// The event.
    #[serde(rename = "eventID")]
    pub event_id: EventId,
    /// The event's type.
    #[serde(rename = "type")]
    #[schema(value_type = EventType)]
    pub kind: String,
    /// How it stands.
    pub status: DeliveryStatus,
    /// When it was queued.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// How many attempts were made.
    #[schema(minimum = 0, example = 1)]
    pub attempts: i32,
    /// When the last attempt was made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub attempted_at: Option<OffsetDateTime>,
    /// The HTTP status of the last answer.
    #[schema(example = 204)]
    pub answer: Option<i32>,
    /// How the last attempt failed.
    #[schema(example = "HTTP 503")]
    pub error: Option<String>,
    /// When the next attempt is made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// When it was answered with 2xx.
    #[serde(with = "time::serde::rfc3339::option")]
    pub delivered_at: Option<OffsetDateTime>,
}

impl From<Delivery> for WebhookDelivery {
    fn from(row: Delivery) -> Self {
        let status = match (row.delivered_at, row.due_at) {
            (Some(_), _) => DeliveryStatus::Delivered,
            (None, Some(_)) => DeliveryStatus::Pending,
            (None, None) => DeliveryStatus::Failed,
        };
        Self {
            event_id: row.event,
            kind: row.kind,
            status,
            created_at: row.created_at,
            attempts: row.attempts,
            attempted_at: row.attempted_at,
            answer: row.status,
            error: row.error,
            next_attempt_at: row.due_at,
            delivered_at: row.delivered_at,
        }
    }
}
