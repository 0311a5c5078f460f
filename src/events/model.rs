//! Events as readers and receivers get them. No I/O.

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::endpoints::Webhook;
use super::kind::EventType;
use crate::common::ids::EventId;
use crate::connections::bulk_revocation::BulkRevocation;
use crate::connections::erasure::Receipt;
use crate::connections::model::Connection;
use crate::oauth::secrets::Shown;

/// An event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// The event's id.
    pub id: EventId,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When it was committed.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// The number of the event among those of its connection, from 1; `null` for events of other things.
    #[schema(minimum = 1, example = 2)]
    pub sequence: Option<i64>,
    /// The resource as `GET` showed it at the commit.
    #[schema(value_type = EventData)]
    pub data: Box<RawValue>,
}

/// The resource that an event is about.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum EventData {
    /// Of `connection.…`.
    Connection(Box<Connection>),
    /// Of `user.erased`.
    Erasure(Receipt),
    /// Of `revocation.finished`.
    Revocation(BulkRevocation),
    /// Of `client.disabled`.
    Client(Shown<'static>),
    /// Of `webhook.disabled` and `webhook.test`.
    Webhook(Webhook),
}
