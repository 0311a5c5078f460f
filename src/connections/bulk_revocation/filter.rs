//! The filter of a bulk revocation: which connections it revokes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::common::ids::ConnectionId;

/// Selects the connections that match every field that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationFilter {
    /// Belongs to one of these users.
    #[serde(rename = "clientUserIDs")]
    pub client_user_ids: Option<Vec<String>>,
    /// Strongroom's connection ids and Dapi's names of bank logins, in one list.
    #[serde(rename = "connectionIDs")]
    pub connection_ids: Option<Vec<String>>,
    /// Exclusive.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_before: Option<OffsetDateTime>,
    /// Inclusive.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_after: Option<OffsetDateTime>,
    /// The OAuth client that submitted the code, or that created the connect session which did.
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// Every connection of the app. Excludes every other field.
    pub all: bool,
}

/// Why a filter is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    #[error("names nothing; say `all: true` where every connection of the app is meant")]
    Empty,
    /// `all` beside a narrower field: ambiguous, so it is refused rather than guessed.
    #[error("has `all: true` beside something narrower")]
    AllAndMore,
    /// Would match nothing, or everything if the list were taken as absent.
    #[error("has an empty list; leave it out")]
    EmptyList,
}

impl RevocationFilter {
    /// Checks that the filter has exactly one reading.
    pub fn check(&self) -> Result<(), InvalidFilter> {
        let lists = [&self.client_user_ids, &self.connection_ids];
        if lists.iter().any(|list| list.as_ref().is_some_and(Vec::is_empty)) {
            return Err(InvalidFilter::EmptyList);
        }
        let has_others = *self != Self { all: self.all, ..Self::default() };
        match (self.all, has_others) {
            (true, true) => Err(InvalidFilter::AllAndMore),
            (false, false) => Err(InvalidFilter::Empty),
            _ => Ok(()),
        }
    }

    /// Returns Strongroom's ids among `connection_ids`.
    pub fn ids(&self) -> Option<Vec<Uuid>> {
        let ids = |id: &String| id.parse().ok().map(ConnectionId::uuid);
        Some(self.connection_ids.as_ref()?.iter().filter_map(ids).collect())
    }

    /// Returns Dapi's names of bank logins among `connection_ids`: all that is not one of our ids.
    pub fn logins(&self) -> Option<Vec<String>> {
        let is_login = |id: &&String| id.parse::<ConnectionId>().is_err();
        Some(self.connection_ids.as_ref()?.iter().filter(is_login).cloned().collect())
    }

    /// Returns the filter as `bulk_revocations` stores it: lists become their lengths, so that no user's
    /// name outlives the user's erasure.
    pub fn described(&self) -> Value {
        let count = |list: &Option<Vec<String>>| list.as_ref().map(Vec::len);
        let mut described = json!(self);
        if let Some(object) = described.as_object_mut() {
            object.insert("clientUserIDs".to_owned(), json!(count(&self.client_user_ids)));
            object.insert("connectionIDs".to_owned(), json!(count(&self.connection_ids)));
            object.retain(|_, value| !value.is_null() && *value != json!(false));
        }
        described
    }
}
