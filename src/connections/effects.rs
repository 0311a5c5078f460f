//! What a use case makes happen outside the database.
//!
//! A transaction may be retried, and may turn out not to have been committed. So nothing is counted, announced or
//! woken inside it: it returns its effects, and they are applied once, after the commit.

use super::Context;
use crate::common::ids::ConnectionId;
use crate::common::named::named;

/// How a revocation ended, as its metric's label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationEnd {
    /// It is certain that Dapi holds nothing usable.
    Confirmed,
    /// Dapi may still hold a usable token.
    Unconfirmed,
    /// A newer connection of the login superseded it.
    Superseded,
}

named!(RevocationEnd {
    Confirmed => "confirmed",
    Unconfirmed => "unconfirmed",
    Superseded => "superseded",
});

impl RevocationEnd {
    /// The end of a revocation that Dapi has confirmed, or not.
    pub const fn of(confirmed: bool) -> Self {
        if confirmed { Self::Confirmed } else { Self::Unconfirmed }
    }
}

/// Effects of a transaction, to be applied after its commit.
#[must_use = "what was committed is neither counted nor announced until its effects are applied"]
#[derive(Debug, Default)]
pub struct Effects {
    revocations: Vec<RevocationEnd>,
    tokens_dropped: u64,
    changed: Option<ConnectionId>,
    wake: bool,
}

impl Effects {
    /// A revocation ended.
    pub fn revocation(end: RevocationEnd) -> Self {
        Self { revocations: vec![end], ..Self::default() }
    }

    /// A token came that no connection could take: it lives on at Dapi.
    pub fn token_dropped() -> Self {
        Self { tokens_dropped: 1, ..Self::default() }
    }

    /// These, and others of the same transaction.
    pub fn and(mut self, other: Self) -> Self {
        self.revocations.extend(other.revocations);
        self.tokens_dropped += other.tokens_dropped;
        self.changed = self.changed.or(other.changed);
        self.wake |= other.wake;
        self
    }

    /// These, and news for the requests of this process that wait for the connection.
    pub fn changed(mut self, id: ConnectionId) -> Self {
        self.changed = Some(id);
        self
    }

    /// These, and a wake-up for the background work, which has something to do now.
    pub fn wake(mut self) -> Self {
        self.wake = true;
        self
    }

    /// Applies them. The transaction has been committed.
    pub fn apply(self, context: &Context) {
        for end in self.revocations {
            context.metrics.revocation(end);
        }
        context.metrics.tokens_dropped.inc_by(self.tokens_dropped);
        if let Some(id) = self.changed {
            context.changes.notify(id);
        }
        if self.wake {
            context.wake.notify_one();
        }
    }
}
