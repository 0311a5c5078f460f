//! Which connections a bulk revocation means.

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::base::ids::ConnectionId;

/// Which connections are meant: those for which everything holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationFilter {
    /// Of one of these users.
    #[serde(rename = "clientUserIDs")]
    pub client_user_ids: Option<Vec<String>>,
    /// One of these: ids of Strongroom's, or Dapi's names for the bank logins.
    #[serde(rename = "connectionIDs")]
    pub connection_ids: Option<Vec<String>>,
    /// Received before this.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_before: Option<OffsetDateTime>,
    /// Received at this time or after it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_after: Option<OffsetDateTime>,
    /// Handed in by this OAuth client, or in a connect session that it made.
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// All of the app's.
    pub all: bool,
}

/// Why a filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It says nothing.
    #[error("names nothing; say `all: true` where every connection of the app is meant")]
    Empty,
    /// It says everything and something.
    #[error("has `all: true` beside something narrower")]
    AllAndMore,
    /// A list of nothing.
    #[error("has an empty list; leave it out")]
    EmptyList,
}

impl RevocationFilter {
    /// Accepts a filter that can only be meant as it is written.
    pub fn check(&self) -> Result<(), InvalidFilter> {
        let lists = [&self.client_user_ids, &self.connection_ids];
        if lists.iter().any(|list| list.as_ref().is_some_and(Vec::is_empty)) {
            return Err(InvalidFilter::EmptyList);
        }
        let narrower = *self != Self { all: self.all, ..Self::default() };
        match (self.all, narrower) {
            (true, true) => Err(InvalidFilter::AllAndMore),
            (false, false) => Err(InvalidFilter::Empty),
            _ => Ok(()),
        }
    }

    /// Strongroom's ids among `connection_ids`.
    pub fn ids(&self) -> Option<Vec<Uuid>> {
        let ids = |id: &String| id.parse().ok().map(ConnectionId::uuid);
        Some(self.connection_ids.as_ref()?.iter().filter_map(ids).collect())
    }

    /// Dapi's names among them.
    pub fn logins(&self) -> Option<Vec<String>> {
        let is_login = |id: &&String| id.parse::<ConnectionId>().is_err();
        Some(self.connection_ids.as_ref()?.iter().filter(is_login).cloned().collect())
    }

    /// The filter as the order keeps it: how many were named, and not who, so that no user's name
    /// outlives the user.
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
