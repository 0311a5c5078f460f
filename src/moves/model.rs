//! Where an app is on its way, and what it waits for.

use std::fmt::{Display, Formatter};

use serde::Serialize;

/// Where an app is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing begins, what is in flight may end.
    Draining,
    /// Nothing is written: it is exported, or was.
    Closed,
    /// It is at another deployment.
    Moved,
    /// It was imported here and is about to serve.
    Settling,
}

impl State {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "draining" => Self::Draining,
            "closed" => Self::Closed,
            "moved" => Self::Moved,
            _ => Self::Settling,
        }
    }

    /// Returns the word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining | Self::Closed => "moving",
            Self::Moved => "moved",
            Self::Settling => "arriving",
        }
    }
}

/// What is in flight and ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    pub(super) exchanges: i64,
    pub(super) kept_answers: i64,
    pub(super) delinks: i64,
    pub(super) calls: i64,
    pub(super) rotations: i64,
    pub(super) markings: i64,
    pub(super) upstream_tokens: i64,
    pub(super) data_keys: i64,
    pub(super) approvals: i64,
}

impl Display for InFlight {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (
                self.exchanges,
                "exchanges, or answers to them that a replica may keep for 15 minutes",
            ),
            (
                self.kept_answers,
                "answers of replicas that lost their work to others, which may keep them for 15 minutes",
            ),
            (self.delinks, "delinkings"),
            (self.calls, "calls with tokens"),
            (self.rotations, "rotations of tokens"),
            (self.markings, "bulk revocations that are being marked"),
            (self.upstream_tokens, "requests for upstreams' tokens"),
            (self.data_keys, "data keys that rotate (`strongroom keys rotate-data` finishes that)"),
            (self.approvals, "requests that wait for a second person"),
        ];
        let waits = counts.iter().filter(|(count, _)| *count > 0);
        let waits: Vec<_> = waits.map(|(count, what)| format!("{what} ({count})")).collect();
        write!(f, "in flight are {}", waits.join(", "))
    }
}
