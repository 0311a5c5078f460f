//! The actor of a request or a background task, for the audit trail.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::ids::SessionId;
use super::scope::Scope;

/// Who acts, and from where.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The kind of actor and its id.
    pub who: Who,
    /// The caller's address, if there is a caller; from a trusted proxy, the address that it reports.
    pub ip: Option<IpAddr>,
    /// The request that causes the action; also in `X-Request-ID` and the log.
    pub request_id: Option<Uuid>,
}

/// The kinds of actors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// An OAuth client with an access token.
    Client {
        /// The `client_id`.
        id: Arc<str>,
        /// The scope that the request needed, not all that the token carries.
        scope: Scope,
    },
    /// An OAuth client authenticated by its secret or an assertion, at one of the OAuth endpoints.
    ClientBySecret(Arc<str>),
    /// A browser with a connect session.
    Session(SessionId),
    /// A person of the deployment, at the command line or in the console: the operator's name, or `None` for a command
    /// that names no operator.
    Operator(Option<Arc<str>>),
    /// The background work.
    Service,
}

impl Actor {
    /// Returns the actor of the background work.
    #[must_use]
    pub const fn service() -> Self {
        Self { who: Who::Service, ip: None, request_id: None }
    }

    /// Returns the actor of a command that names no operator.
    #[must_use]
    pub const fn operator() -> Self {
        Self { who: Who::Operator(None), ip: None, request_id: None }
    }

    /// Returns the operator of this name, at the command line.
    #[must_use]
    pub fn operator_named(name: &str) -> Self {
        Self { who: Who::Operator(Some(name.into())), ip: None, request_id: None }
    }
}
