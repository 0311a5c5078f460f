//! Who does something, for the audit trail.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::ids::SessionId;
use super::scope::Scope;

/// Who does something and from where.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Who.
    pub who: Who,
    /// The caller's address, where there is a caller; behind a trusted proxy, what the proxy says.
    pub ip: Option<IpAddr>,
    /// The request that caused it.
    pub request_id: Option<Uuid>,
}

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// An OAuth client, by the scope that let it.
    Client {
        /// The client's id.
        id: Arc<str>,
        /// The scope that the request needed.
        scope: Scope,
    },
    /// An OAuth client by its secret, at one of the OAuth endpoints.
    ClientBySecret(Arc<str>),
    /// A browser with a connect session.
    Session(SessionId),
    /// Somebody at the command line.
    Operator,
    /// The background work.
    Service,
}

impl Actor {
    /// The background work.
    #[must_use]
    pub const fn service() -> Self {
        Self { who: Who::Service, ip: None, request_id: None }
    }

    /// Somebody at the command line.
    #[must_use]
    pub const fn operator() -> Self {
        Self { who: Who::Operator, ip: None, request_id: None }
    }
}
