//! What is shown of a person. No I/O.

use time::OffsetDateTime;

use crate::common::ids::{DataKeyId, SessionId, UserId};
use crate::connections::erasure::Erasure;
use crate::connections::query::search::Found;

/// The row of a user.
#[derive(Clone, Debug)]
pub struct User {
    pub client_user_id: String,
    pub created_at: OffsetDateTime,
}

/// A connect session of a user that is alive.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: SessionId,
    pub created_by: String,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

/// What an erasure would destroy.
#[derive(Clone, Debug)]
pub struct Goes {
    pub connections: i64,
    /// Those of which something may live at the bank link, so that it is told first.
    pub alive: i64,
    pub sessions: i64,
    pub data_key: Option<DataKeyId>,
    /// Rows of the trail with the random id, which stay; up to one more than [`COUNTED`](super::store::COUNTED).
    pub trail: i64,
}

/// A person who is known.
#[derive(Debug)]
pub struct Person {
    pub user: User,
    pub links: Vec<Found>,
    pub sessions: Vec<Session>,
    pub goes: Goes,
}

/// The page's content.
#[derive(Debug)]
pub struct Shown {
    /// When it was read, by the database's clock.
    pub at: OffsetDateTime,
    pub id: UserId,
    /// `None` once they are erased.
    pub person: Option<Person>,
    pub erasure: Option<Erasure>,
}
