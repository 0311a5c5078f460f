//! Checks a chain from its first link to its last, in one snapshot and in pieces of a fixed size.

use serde::Serialize;
use time::OffsetDateTime;

use super::checkpoint::Checkpoint;
use super::model::{Head, LINK_VERSION};
use super::store::{self, Link};
use crate::base::ids::{AppId, AuditEventId};
use crate::database::{Conn, LongWork};

/// How many links are read at a time.
const PIECE: i64 = 2000;

/// What is wrong with a chain at the first place where anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The row that the link names is gone.
    Removed,
    /// A link is gone from the middle.
    LinkRemoved,
    /// The row or its link is not what it was, or stands in another's place.
    Changed,
    /// The link was made by a newer release, or by somebody else.
    UnknownVersion,
    /// The chain has fewer links than a checkpoint says: its end is gone.
    CutOff,
    /// The chain holds together and is not the one that a checkpoint was made of.
    Rewritten,
    /// A row has no link and does not wait for one.
    NeverLinked,
}

impl Fault {
    /// What it means, in words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Removed => "the row was removed",
            Self::LinkRemoved => "a link is missing",
            Self::Changed => "the row or its link was edited, or stands in another's place",
            Self::UnknownVersion => "the link is of a kind that this release does not know",
            Self::CutOff => "the chain ends before the checkpoint: its end was cut off",
            Self::Rewritten => "the chain is not the one of the checkpoint: it was rewritten",
            Self::NeverLinked => "the row has no link and does not wait for one",
        }
    }
}

/// The first place where a chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Break {
    /// What is wrong.
    pub fault: Fault,
    /// The place in the chain, where it has one.
    pub seq: Option<i64>,
    /// The row, where one is named.
    pub event: Option<AuditEventId>,
}

/// What a check found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many links hold, from the first on.
    pub linked: i64,
    /// The hash of the last that holds, in hexadecimal.
    pub hash: String,
    /// Rows that were written and wait for their links: nothing is known about them yet.
    pub unlinked: i64,
    /// When the oldest of those was written.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest_unlinked: Option<OffsetDateTime>,
    /// How many checkpoints the chain was held against.
    pub checkpoints: usize,
    /// The first place where it is broken; `null` where it is whole.
    pub broken: Option<Break>,
}

/// Checks an app's chain, and that it continues what each checkpoint says. `progress` hears how many
/// links were checked, of how many.
pub async fn verify(
    conn: &mut Conn,
    app: AppId,
    checkpoints: &[Checkpoint],
    mut progress: impl FnMut(i64, i64),
) -> sqlx::Result<Report> {
    // One snapshot: the chainer goes on meanwhile.
    let mut tx = conn.begin_snapshot(LongWork::AuditVerification).await?;
    store::plan_by_index(&mut tx).await?;
    let end = store::head(&mut tx, app).await?.seq;
    let (mut head, mut broken) = (Head::EMPTY, None);
    while broken.is_none() {
        let links = store::links(&mut tx, app, head.seq, PIECE).await?;
        if links.is_empty() {
            break;
        }
        for link in &links {
            match follow(head, app, link, checkpoints) {
                Ok(next) => head = next,
                Err(found) => {
                    broken = Some(found);
                    break;
                }
            }
        }
        progress(head.seq, end);
    }
    let unlinked = store::unlinked(&mut tx, app).await?;
    tx.commit().await?;
    let broken = broken.or_else(|| cut_off(head, checkpoints)).or(unlinked
        .lost
        .map(|event| Break { fault: Fault::NeverLinked, seq: None, event: Some(event) }));
    Ok(Report {
        linked: head.seq,
        hash: head.hash.to_string(),
        unlinked: unlinked.waiting,
        oldest_unlinked: unlinked.oldest,
        checkpoints: checkpoints.len(),
        broken,
    })
}

/// The chain with this link, if it continues it.
fn follow(head: Head, app: AppId, link: &Link, checkpoints: &[Checkpoint]) -> Result<Head, Break> {
    let seq = head.seq + 1;
    let broken = |fault| Break { fault, seq: Some(seq), event: Some(link.event_id) };
    if link.seq != seq {
        return Err(Break { fault: Fault::LinkRemoved, seq: Some(seq), event: None });
    }
    if link.version != LINK_VERSION {
        return Err(broken(Fault::UnknownVersion));
    }
    let event = link.event.as_ref().ok_or_else(|| broken(Fault::Removed))?;
    let next = head.followed_by(app, event);
    if link.hash != Some(next.hash) {
        return Err(broken(Fault::Changed));
    }
    if checkpoints.iter().any(|point| point.seq == seq && point.hash != next.hash.to_string()) {
        return Err(broken(Fault::Rewritten));
    }
    Ok(next)
}

/// Whether a checkpoint knows of more links than there are.
fn cut_off(head: Head, checkpoints: &[Checkpoint]) -> Option<Break> {
    let beyond = checkpoints.iter().any(|point| point.seq > head.seq);
    beyond.then_some(Break { fault: Fault::CutOff, seq: Some(head.seq + 1), event: None })
}
