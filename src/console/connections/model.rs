//! What is looked for, and what is shown of one connection. No I/O.

use std::collections::HashMap;

use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use crate::audit::Linked;
use crate::common::ids::{AuditEventId, BulkRevocationId, InvalidId};
use crate::connections::model::{RevocationProgress, Status};
use crate::connections::query::search::{Search, WithHistory};
use crate::console::fields::{given, query_string};

/// Connections on a page.
pub const ON_A_PAGE: u8 = 50;

/// The age of a connection, as the counts have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Hour,
    Day,
    Week,
    Month,
    Older,
}

impl Age {
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Older];

    /// Returns its name in a query.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Older => "older",
        }
    }

    /// Returns its words for a reader.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hour => "less than an hour",
            Self::Day => "less than a day",
            Self::Week => "less than a week",
            Self::Month => "less than thirty days",
            Self::Older => "thirty days or more",
        }
    }

    /// Returns the times between which it was received, as `(after, before)`.
    fn bounds(self, now: OffsetDateTime) -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
        match self {
            Self::Hour => (Some(now - Duration::HOUR), None),
            Self::Day => (Some(now - Duration::DAY), None),
            Self::Week => (Some(now - Duration::WEEK), None),
            Self::Month => (Some(now - Duration::days(30)), None),
            Self::Older => (None, Some(now - Duration::days(30))),
        }
    }
}

/// How far the connections of an incident are that a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// All of them.
    Any,
    /// Those that live at the bank link.
    Live,
    /// Those that are this far.
    At(RevocationProgress),
}

impl Far {
    /// Every choice, in the order of the incident's figures.
    pub const ALL: [Self; 6] = [
        Self::Any,
        Self::At(RevocationProgress::Told),
        Self::At(RevocationProgress::Failed),
        Self::At(RevocationProgress::Telling),
        Self::At(RevocationProgress::Waiting),
        Self::Live,
    ];

    /// Returns its name in a query.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Live => "live",
            Self::At(progress) => progress.as_str(),
        }
    }

    /// Returns its words for a reader.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Live => "live at the bank",
            Self::At(RevocationProgress::Told) => "told: confirmed",
            Self::At(RevocationProgress::Failed) => "failed: ended without a confirmation",
            Self::At(RevocationProgress::Telling) => "being told",
            Self::At(RevocationProgress::Waiting) => "waiting",
        }
    }

    /// Returns what it holds.
    #[must_use]
    pub const fn progress(&self) -> &[RevocationProgress] {
        match self {
            Self::Any => &RevocationProgress::ALL,
            Self::Live => &RevocationProgress::LIVE,
            Self::At(progress) => std::slice::from_ref(progress),
        }
    }
}

/// The query string of the search. A form sends its empty fields as well.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Query {
    /// Part of an id or of a user's name.
    #[serde(default)]
    pub text: String,
    #[serde(default)]
    pub user: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub age: String,
    #[serde(default)]
    pub client: String,
    #[serde(default)]
    pub attention: String,
    /// The incident whose connections are listed. Then `progress` alone narrows the list.
    #[serde(default)]
    pub incident: String,
    /// How far they are.
    #[serde(default)]
    pub progress: String,
    #[serde(default)]
    pub cursor: String,
}

impl Query {
    /// Returns the status that is looked for; any if it is not one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        Status::parse(&self.status)
    }

    /// Returns the age that is looked for; any if it is not one.
    #[must_use]
    pub fn age(&self) -> Option<Age> {
        Age::ALL.into_iter().find(|age| age.name() == self.age)
    }

    /// Returns the incident whose connections are listed, if the list is of one.
    #[must_use]
    pub fn incident(&self) -> Option<Result<BulkRevocationId, InvalidId>> {
        given(&self.incident).map(str::parse)
    }

    /// Returns how far the connections of the incident are; any if it is not one of the choices.
    #[must_use]
    pub fn far(&self) -> Far {
        Far::ALL.into_iter().find(|far| far.name() == self.progress).unwrap_or(Far::Any)
    }

    /// Returns what is looked for. `now` is the database's time.
    #[must_use]
    pub fn search(&self, now: OffsetDateTime) -> Search<'_> {
        let (created_after, created_before) =
            self.age().map_or((None, None), |age| age.bounds(now));
        Search {
            client_user_id: given(&self.user),
            status: self.status(),
            attention: (self.attention == "true").then_some(true),
            created_by: given(&self.client),
            created_before,
            created_after,
            text: given(&self.text),
            limit: ON_A_PAGE,
            cursor: self.cursor.parse().ok(),
        }
    }

    /// Whether anything narrows the list.
    #[must_use]
    pub fn narrows(&self) -> bool {
        let fields = [
            &self.text,
            &self.user,
            &self.status,
            &self.age,
            &self.client,
            &self.attention,
            &self.incident,
        ];
        fields.into_iter().any(|field| !field.is_empty())
    }

    /// Returns the query string of the page that begins at `cursor`.
    #[must_use]
    pub fn page(&self, cursor: &str) -> String {
        query_string(&[
            ("text", &*self.text),
            ("user", &self.user),
            ("status", &self.status),
            ("age", &self.age),
            ("client", &self.client),
            ("attention", &self.attention),
            ("incident", &self.incident),
            ("progress", &self.progress),
            ("cursor", cursor),
        ])
    }
}

/// What an operator's view of a connection leaves out: its leases and its work.
#[derive(Clone, Debug)]
pub struct Standing {
    pub lease_epoch: i32,
    /// Until when a call's lease lives.
    pub leased_until: Option<OffsetDateTime>,
    /// Whether an attempt went unanswered.
    pub unanswered: bool,
    pub due_at: Option<OffsetDateTime>,
    /// When its incident let it through to the bank link.
    pub released_at: Option<OffsetDateTime>,
    /// Until when a call with the token holds it.
    pub in_call_until: Option<OffsetDateTime>,
    /// Callers that wait for the token.
    pub queued: i64,
}

/// An event that was given to the app's backends.
#[derive(Clone, Debug)]
pub struct Told {
    pub position: i64,
    pub kind: String,
    pub at: OffsetDateTime,
    pub sequence: Option<i64>,
    /// Deliveries to webhooks: made, and outstanding.
    pub delivered: i64,
    pub outstanding: i64,
}

/// All that is known of one connection.
#[derive(Debug)]
pub struct Life {
    /// When it was read, by the database's clock.
    pub at: OffsetDateTime,
    pub found: WithHistory,
    pub standing: Standing,
    /// Whether each row of the trail continues the chain.
    pub links: HashMap<AuditEventId, Linked>,
    pub events: Vec<Told>,
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_form_s_empty_fields_narrow_nothing() {
        let search = Query::default();
        let search = search.search(datetime!(2026-11-27 12:00 UTC));
        assert!(
            search.text.is_none() && search.client_user_id.is_none() && search.status.is_none()
        );
        assert!(!Query::default().narrows());
    }

    #[test]
    fn the_next_page_keeps_what_narrows_the_list() {
        let query =
            Query { user: "a&b".to_owned(), status: "active".to_owned(), ..Query::default() };
        assert_eq!(query.page("X1"), "user=a%26b&status=active&cursor=X1");
        let query = Query { incident: "ord_1".to_owned(), progress: "live".to_owned(), ..query };
        assert!(query.page("X1").ends_with("incident=ord%5F1&progress=live&cursor=X1"));
    }

    #[test]
    fn a_list_of_an_incident_has_every_way_in_which_a_connection_can_stand() {
        let each = RevocationProgress::ALL.map(Far::At);
        assert!(each.iter().all(|far| Far::ALL.contains(far)));
        let query = Query { progress: "nonsense".to_owned(), ..Query::default() };
        assert_eq!(query.far().progress(), RevocationProgress::ALL);
        assert_eq!(Query::default().incident(), None);
    }
}
