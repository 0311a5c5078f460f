//! The filters of the page, as its form sends them.

use serde::Deserialize;
use time::OffsetDateTime;

use crate::audit;
use crate::common::ids::AppId;
use crate::console::fields::{given, moment, query_string};

/// The query string. A form sends its empty fields as well.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Query {
    /// The exact action.
    #[serde(default)]
    pub action: String,
    /// The app's name for a user.
    #[serde(default)]
    pub user: String,
    /// `conn_…`.
    #[serde(default)]
    pub connection: String,
    /// The client that acted.
    #[serde(default)]
    pub client: String,
    /// The kind of actor.
    #[serde(default)]
    pub actor: String,
    /// UTC, exclusive.
    #[serde(default)]
    pub before: String,
    /// UTC, inclusive.
    #[serde(default)]
    pub after: String,
    /// Where the page starts.
    #[serde(default)]
    pub cursor: String,
}

impl Query {
    /// Returns the filter.
    ///
    /// # Errors
    /// The field that cannot be read.
    pub fn filter(&self, app: AppId) -> Result<audit::Filter, &'static str> {
        let connection = match given(&self.connection) {
            None => None,
            Some(id) => Some(id.parse().map_err(|_| "connection")?),
        };
        Ok(audit::Filter {
            app,
            action: given(&self.action).map(str::to_owned),
            client_user_id: given(&self.user).map(str::to_owned),
            connection,
            client_id: given(&self.client).map(str::to_owned),
            actor: given(&self.actor).map(str::to_owned),
            before: instant(&self.before).map_err(|()| "before")?,
            after: instant(&self.after).map_err(|()| "after")?,
        })
    }

    /// Returns the query string with another cursor.
    #[must_use]
    pub fn page(&self, cursor: &str) -> String {
        query_string(&[
            ("action", &*self.action),
            ("user", &self.user),
            ("connection", &self.connection),
            ("client", &self.client),
            ("actor", &self.actor),
            ("before", &self.before),
            ("after", &self.after),
            ("cursor", cursor),
        ])
    }
}

fn instant(text: &str) -> Result<Option<OffsetDateTime>, ()> {
    given(text).map(|text| moment(text).ok_or(())).transpose()
}
