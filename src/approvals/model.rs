//! What waits for a second person. No I/O.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::common::ids::{AppId, ApprovalId};
use crate::common::named::named;
use crate::config::FourEyes;

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ApprovalKind)]
pub enum Kind {
    /// A bulk revocation of more connections than one person may revoke.
    BulkRevocation,
    /// Giving up what a bulk revocation has not delinked.
    Cancellation,
    /// Ending one connection without its delinking.
    Invalidation,
    /// The erasure of a user.
    Erasure,
    /// A new operator who may do more than read.
    Operator,
    /// A higher role for an operator.
    Role,
}

named!(
    Kind {
        BulkRevocation => "bulk_revocation",
        Cancellation => "cancellation",
        Invalidation => "invalidation",
        Erasure => "erasure",
        Operator => "operator",
        Role => "role",
    },
    parse
);

impl Kind {
    /// Returns whether it needs an admin: what decides who the operators are.
    #[must_use]
    pub const fn needs_admin(self) -> bool {
        matches!(self, Self::Operator | Self::Role)
    }

    /// Returns whether an operator of this role may decide it.
    #[must_use]
    pub fn may_be_decided_by(self, role: &str) -> bool {
        role == "admin" || (role == "operator" && !self.needs_admin())
    }
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalStatus {
    /// It waits for a second person.
    Pending,
    /// It was approved and carried out, in one step.
    Approved,
    /// A second person said no.
    Rejected,
    /// Its requester took it back.
    Withdrawn,
    /// Its hour passed.
    Expired,
}

named!(
    ApprovalStatus {
        Pending => "pending",
        Approved => "approved",
        Rejected => "rejected",
        Withdrawn => "withdrawn",
        Expired => "expired",
    },
    parse
);

/// A request that waits for a second person, or did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// How far it is.
    pub status: ApprovalStatus,
    /// What is to be done.
    pub kind: Kind,
    /// The request; of lists, their lengths.
    #[schema(value_type = serde_json::Map<String, Value>, example = json!({ "kind": "invalidate", "filter": { "all": true } }))]
    pub request: Value,
    /// How many connections it would have affected when it was asked for.
    #[schema(example = 1204)]
    pub matched: Option<i64>,
    /// Who asked: `client: ID`, `operator: NAME`, or `operator` for a command that names none.
    #[schema(example = "client: payroll7Qm2Xv9")]
    pub requested_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends by itself: an hour later.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Who approved, rejected or withdrew it; `service` if it expired.
    #[schema(example = "operator: ana")]
    pub decided_by: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339::option")]
    pub decided_at: Option<OffsetDateTime>,
    /// Why it was rejected.
    pub decision_reason: Option<String>,
    /// The app; `None` for the deployment.
    #[serde(skip)]
    pub app: Option<AppId>,
}

/// A request that was recorded and not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PendingApproval)]
pub struct Awaiting {
    /// The approval's id.
    pub id: ApprovalId,
    /// `pending`.
    pub status: ApprovalStatus,
    /// When it ends by itself.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// The answer to a request that waits for a second person.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct AwaitingApproval {
    /// What it waits for.
    pub approval: Awaiting,
}

/// A request to record.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The app; `None` for the deployment.
    pub app: Option<AppId>,
    /// What is to be done.
    pub kind: Kind,
    /// Everything that is needed to do it, in one spelling.
    pub request: String,
    /// The same without the names of users.
    pub described: Value,
    /// How many connections it would affect now.
    pub matched: Option<i64>,
}

/// The requests of one kind that wait, of every app and of the deployment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waiting {
    /// What is to be done.
    pub kind: Kind,
    /// How many wait.
    pub count: i64,
    /// The age of the oldest, in seconds.
    pub oldest: f64,
}

/// What became of something that may need a second person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gated<T> {
    /// It needed none, and was done.
    Done(T),
    /// Nothing was done; it waits.
    Awaits(Awaiting),
}

/// Shows that something may be done: four eyes do not apply to it, or a second person approved it in this very transaction.
///
/// What four eyes can hold takes one. It is made in this module alone, and can be neither copied nor kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Permitted(());

impl Permitted {
    /// For a request that needs no second person.
    pub(super) const fn unneeded() -> Self {
        Self(())
    }

    /// For a request that was approved in this transaction.
    pub(super) const fn by_approval() -> Self {
        Self(())
    }

    /// Permits everything if four eyes are off.
    #[must_use]
    pub fn without(four_eyes: FourEyes) -> Option<Self> {
        (!four_eyes.is_on()).then_some(Self(()))
    }

    /// For what an OpenID provider decides about its people: their roles are approved there, or not.
    #[must_use]
    pub const fn by_provider() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auditor_decides_nothing_and_an_operator_nothing_about_operators() {
        for kind in Kind::ALL {
            assert!(kind.may_be_decided_by("admin"), "{kind:?}");
            assert!(!kind.may_be_decided_by("auditor"), "{kind:?}");
            assert_eq!(kind.may_be_decided_by("operator"), !kind.needs_admin(), "{kind:?}");
        }
    }

    #[test]
    fn nothing_is_permitted_without_asking_while_four_eyes_are_on() {
        assert!(Permitted::without(FourEyes::OFF).is_some());
        assert_eq!(Permitted::without(FourEyes::above(0)), None);
    }
}
