//! The one call that Dapi's SDK makes without a token: the status of one of the app's operations.

use std::time::{Duration, Instant};

use super::Context;
use super::call::{self, Outcome};
use super::paths::DapiPath;
use super::queue::{GATE_PATIENCE, LeaseError};
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::trace::TraceContext;
use crate::providers::{CallBody, Field, Lane};
use crate::{apps, audit};

/// Calls Dapi with the app's secret alone. Takes no token lease, because no token is used.
pub(super) async fn call(
    context: &Context,
    actor: Actor,
    app: AppId,
    path: &'static DapiPath,
    fields: Vec<Field>,
    trace: TraceContext,
) -> Result<Outcome, LeaseError> {
    let context = &context.connections;
    let permit = context.providers.gate().enter(app, Lane::Call, GATE_PATIENCE).await;
    let permit = permit.map_err(LeaseError::Gate)?;
    let mut conn = context.pool.acquire().await?;
    let credentials = apps::credentials(&mut conn, app).await?.ok_or(LeaseError::Unknown)?;
    let credentials = credentials.open(&context.vault)?;
    let event = audit::Event {
        app,
        action: "dapi.call",
        outcome: "begun",
        user: None,
        connection: None,
        reason: Some(path.path),
    };
    audit::record(&mut conn, &actor, &event).await?;
    // Returns the database connection to the pool before the call to Dapi.
    drop(conn);
    let body =
        CallBody { fields: &fields, app: &credentials, user_secret: None, with_app_key: false };
    let (started, limit): (_, Duration) =
        (Instant::now(), context.providers.settings().call_timeout);
    let sent = context.providers.call(&permit, path.path, None, &body, &trace, limit).await;
    let outcome = match sent {
        Ok(answer) => call::read_whole(answer, &[credentials.app_secret.expose()]).await,
        Err(lost) => Err(lost.into()),
    };
    let label = call::label(&outcome);
    context.providers.count_call(label, started.elapsed());
    let event = audit::Event { outcome: label, ..event };
    audit::record(&mut context.pool.acquire().await?, &actor, &event).await?;
    Ok(outcome)
}
