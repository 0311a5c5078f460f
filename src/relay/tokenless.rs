//! Calls without a token: the status of one of the app's operations at Dapi, the beginning of a link at Plaid.

use std::time::Instant;

use super::Context;
use super::call::{self, Outcome, read_whole};
use super::paths::RelayPath;
use super::queue::{GATE_PATIENCE, LeaseError};
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::trace::TraceContext;
use crate::providers::{Call, Field, Lane};
use crate::{apps, audit};

/// Calls the provider with the app's credentials alone. Takes no token lease, because no token is used.
pub(super) async fn call(
    context: &Context,
    actor: Actor,
    app: AppId,
    path: &'static RelayPath,
    fields: Vec<Field>,
    trace: TraceContext,
) -> Result<Outcome, LeaseError> {
    let context = &context.connections;
    let permit = context.providers.gate().enter(app, Lane::Call, GATE_PATIENCE).await;
    let permit = permit.map_err(LeaseError::Gate)?;
    let mut conn = context.pool.acquire().await?;
    let credentials = apps::credentials(&mut conn, app).await?;
    // An app of another provider has no such path.
    let credentials = credentials.filter(|credentials| credentials.provider == path.provider);
    let credentials = credentials.ok_or(LeaseError::Unknown)?;
    drop(conn);
    let credentials = credentials.open(&context.vault).await?;
    let event = audit::Event {
        app,
        action: path.provider.call_action(),
        outcome: "begun",
        user: None,
        connection: None,
        reason: Some(path.path),
    };
    audit::record(&mut context.pool.acquire().await?, &actor, &event).await?;
    let (started, provider) = (Instant::now(), path.provider);
    let call = Call {
        app: &credentials,
        path: path.path,
        fields: &fields,
        token: None,
        user_secret: None,
        with_app_key: false,
        trace: &trace,
        limit: context.providers.settings(provider).call_timeout,
    };
    let outcome = match context.providers.call(&permit, &call).await {
        Ok(answer) => read_whole(provider, answer, &[credentials.app_secret.expose()]).await,
        Err(lost) => Err(lost.into()),
    };
    let label = call::label(&outcome);
    context.providers.count_call(provider, label, started.elapsed());
    let event = audit::Event { outcome: label, ..event };
    audit::record(&mut context.pool.acquire().await?, &actor, &event).await?;
    Ok(outcome)
}
