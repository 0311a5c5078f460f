//! Checks a chain from its first link to its last, in one snapshot and in portions of a fixed size.

use serde::Serialize;
use time::OffsetDateTime;

use super::archived::ArchiveStatement;
use super::checkpoint::Checkpoint;
use super::model::{Head, LINK_VERSION};
use super::store::{self, Link};
use crate::common::ids::{AppId, AuditEventId};
use crate::database::{Conn, LongWork};

/// How many links one statement reads.
const PIECE: i64 = 2000;

/// The defect at the first broken position of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The row that the link names does not exist any more.
    Removed,
    /// A link is missing from the middle of the chain.
    LinkRemoved,
    /// The row or its link was changed, or moved to another position.
    Changed,
    /// The link's version is unknown: a newer release made it, or a forger.
    UnknownVersion,
    /// The chain has fewer links than a checkpoint states: it was truncated.
    CutOff,
    /// The chain is consistent but does not match a checkpoint: it was rewritten.
    Rewritten,
    /// A row has no link and is not queued for one.
    NeverLinked,
}

impl Fault {
    /// Explains the fault in a sentence for operators.
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

/// The first position at which a chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Break {
    /// The kind of defect.
    pub fault: Fault,
    /// The position in the chain, if the defect has one.
    pub seq: Option<i64>,
    /// The affected row, if the link names one.
    pub event: Option<AuditEventId>,
}

/// The result of a check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many links are valid, counted from the first.
    pub linked: i64,
    /// The hash of the last valid link, in hexadecimal.
    pub hash: String,
    /// Rows that are queued for their links; the check says nothing about them.
    pub unlinked: i64,
    /// When the oldest queued row was written.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest_unlinked: Option<OffsetDateTime>,
    /// How many of the links are in archives: the chain goes on after them where they ended.
    pub archived: i64,
    /// How many checkpoints of the app were given.
    pub checkpoints: usize,
    /// How many of them are of links in archives, with whose files they must be compared.
    pub checkpoints_in_archives: usize,
    /// The first broken position; `null` if the chain is intact.
    pub broken: Option<Break>,
}

/// What is known about an app's chain from elsewhere, each verified with the key that signed it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Checkpoints that were kept.
    pub checkpoints: Vec<Checkpoint>,
    /// What was archived.
    pub archives: Vec<ArchiveStatement>,
}

/// Checks an app's chain, across what was archived of it, and that it extends every checkpoint. Calls `progress` with the
/// number of links checked so far and the total.
pub async fn verify(
    conn: &mut Conn,
    app: AppId,
    known: &Known,
    mut progress: impl FnMut(i64, i64),
) -> sqlx::Result<Report> {
    let checkpoints = &known.checkpoints;
    // One snapshot, because the chainer keeps appending.
    let mut tx = conn.begin_snapshot(LongWork::AuditVerification).await?;
    store::plan_by_index(&mut tx).await?;
    let end = store::head(&mut tx, app).await?.seq;
    let (mut head, mut broken, mut archived) = (Head::EMPTY, None, Vec::new());
    while broken.is_none() {
        let links = store::links(&mut tx, app, head.seq, PIECE, store::EVERY_ID).await?;
        if links.is_empty() {
            break;
        }
        for link in &links {
            let crossed = across(head, known, link.seq);
            match crossed
                .and_then(|crossed| Ok((crossed, follow(crossed, app, link, checkpoints)?)))
            {
                Ok((crossed, next)) => {
                    archived.push(head.seq..crossed.seq);
                    head = next;
                }
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
    // The last link of a run is compared, and those before it only by the file.
    let is_within = |point: &Checkpoint| {
        archived.iter().any(|run| (run.start + 1..run.end).contains(&point.seq))
    };
    Ok(Report {
        linked: head.seq,
        hash: head.hash.to_string(),
        unlinked: unlinked.waiting,
        oldest_unlinked: unlinked.oldest,
        archived: archived.iter().map(|run| run.end - run.start).sum(),
        checkpoints: checkpoints.len(),
        checkpoints_in_archives: checkpoints.iter().filter(|point| is_within(point)).count(),
        broken,
    })
}

/// Returns where the chain stands after the archived links that follow `head`, before the link `until`.
fn across(mut head: Head, known: &Known, until: i64) -> Result<Head, Break> {
    while head.seq + 1 < until {
        match known.archives.iter().find_map(|archive| archive.across(head)) {
            Some(next) if next.seq > head.seq => head = next,
            _ => break,
        }
        if known.checkpoints.iter().any(|point| point.contradicts(head)) {
            return Err(Break { fault: Fault::Rewritten, seq: Some(head.seq), event: None });
        }
    }
    Ok(head)
}

/// Returns the head after `link`, or the break if `link` does not continue the chain.
pub(super) fn follow(
    head: Head,
    app: AppId,
    link: &Link,
    checkpoints: &[Checkpoint],
) -> Result<Head, Break> {
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
    if checkpoints.iter().any(|point| point.contradicts(next)) {
        return Err(broken(Fault::Rewritten));
    }
    Ok(next)
}

/// Returns a break if a checkpoint states more links than there are.
fn cut_off(head: Head, checkpoints: &[Checkpoint]) -> Option<Break> {
    let beyond = checkpoints.iter().any(|point| point.seq > head.seq);
    beyond.then_some(Break { fault: Fault::CutOff, seq: Some(head.seq + 1), event: None })
}
