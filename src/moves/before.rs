//! What is looked at before an app moves.

use super::MoveError;
use super::model::InFlight;
use crate::common::RELEASE;
use crate::common::ids::AppId;
use crate::database::Conn;

/// Refuses if another release serves here: one that knows no fences tries again and again what the database refuses, and one that
/// knows no hash keys of apps refuses the callers of an app that has arrived. Replicas are known by their readiness checks of the
/// last minute.
///
/// # Errors
/// [`MoveError::OtherRelease`].
pub(super) async fn refuse_other_releases(conn: &mut Conn) -> Result<(), MoveError> {
    let other = sqlx::query_scalar!(
        r#"SELECT coalesce(release, 'an earlier one') AS "release!" FROM replicas
         WHERE seen_at > strongroom_now() - interval '1 minute' AND release IS DISTINCT FROM $1 LIMIT 1"#,
        RELEASE,
    )
    .fetch_optional(conn)
    .await?;
    other.map_or(Ok(()), |other| Err(MoveError::OtherRelease { own: RELEASE, other }))
}

/// Counts what waits for a second person: it stays here, and what it asks for would be forgotten.
pub(super) async fn open_approvals(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM approvals
         WHERE app_id = $1 AND status = 'pending' AND expires_at > strongroom_now()"#,
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Refuses if something waits for a second person: an app that is fenced cannot decide about it.
///
/// # Errors
/// [`MoveError::Busy`].
pub(super) async fn refuse_open_approvals(conn: &mut Conn, app: AppId) -> Result<(), MoveError> {
    match open_approvals(conn, app).await? {
        0 => Ok(()),
        approvals => Err(MoveError::Busy(InFlight { approvals, ..InFlight::default() })),
    }
}
