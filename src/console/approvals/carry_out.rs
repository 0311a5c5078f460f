//! Approving a request and carrying it out, in one transaction: both or neither, and once.

use actix_web::Error;
use actix_web::http::StatusCode;

use super::effect::parse;
use crate::approvals::{self, Approved, DecideError, Kind, Refused};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ApprovalId, BulkRevocationId, OperatorSessionId};
use crate::connections::bulk_revocation::{
    self, Change, ChangeOutcome, CreateOutcome, RequestedCancellation, RequestedRevocation,
};
use crate::connections::erasure::{self, RequestedErasure};
use crate::connections::model::RevocationKind;
use crate::connections::revocation::{self, Request, RequestedInvalidation, RevokeOutcome};
use crate::connections::{ConnectionError, Context, Effects};
use crate::console::answer::Refusal;
use crate::console::users;
use crate::database::{Conn, Fault, MaybeDatabase as _};
use crate::http::problem::Problem;
use crate::operators::{self, OperatorError, RequestedOperator, RequestedRole};

/// Attempts while calls under way hold the usage lock.
const ATTEMPTS: u32 = 3;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The approval was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What was asked for cannot be done any more.
    #[error("{0}")]
    Impossible(String),
    /// The use case's.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The database's.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<DecideError> for Failure {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Refused(refused) => Self::Refused(refused),
            DecideError::Database(error) => Self::Database(error),
        }
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Database(error) => Self::Database(error),
            error => Self::Impossible(error.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let refusal = |status, detail: &dyn std::fmt::Display| {
            Refusal::new(status, "Nothing was done", format!("Nothing was done: {detail}.")).into()
        };
        match &failure {
            Failure::Refused(Refused::Unknown) => Problem::not_found().into(),
            Failure::Refused(refused @ (Refused::OwnRequest | Refused::MayNot)) => {
                refusal(StatusCode::FORBIDDEN, refused)
            }
            Failure::Refused(refused) => refusal(StatusCode::CONFLICT, refused),
            Failure::Impossible(what) => refusal(StatusCode::CONFLICT, what),
            Failure::Connection(_) | Failure::Database(_) => match failure {
                Failure::Connection(error) => Problem::from(error).into(),
                Failure::Database(error) => Problem::from(error).into(),
                _ => Problem::not_found().into(),
            },
        }
    }
}

impl Failure {
    fn is_contention(&self) -> bool {
        let database = match self {
            Self::Database(error) => Some(error),
            Self::Connection(error) => error.database(),
            Self::Refused(_) | Self::Impossible(_) => None,
        };
        database.is_some_and(|error| Fault::of(error) == Fault::Contention)
    }
}

/// What is done after the commit, and the bulk revocation to which the approver is led.
#[derive(Default)]
struct CarriedOut {
    after: After,
    leads_to: Option<BulkRevocationId>,
}

impl From<After> for CarriedOut {
    fn from(after: After) -> Self {
        Self { after, leads_to: None }
    }
}

/// What is done after the commit.
#[derive(Default)]
enum After {
    #[default]
    Nothing,
    Effects(Effects),
    /// As many connections were given up.
    GivenUp(u64),
}

/// Approves a request for the operator of a session, and carries it out. Returns the bulk revocation that it began or ended.
///
/// # Errors
/// See [`Failure`]. Then nothing was done, and a request that waited still does.
pub async fn approve(
    context: &Context,
    session: OperatorSessionId,
    actor: &Actor,
    app: AppId,
    id: ApprovalId,
) -> Result<Option<BulkRevocationId>, Failure> {
    let mut attempts = 1;
    loop {
        match approve_once(context, session, actor, app, id).await {
            Err(failure) if failure.is_contention() && attempts < ATTEMPTS => attempts += 1,
            outcome => return outcome,
        }
    }
}

async fn approve_once(
    context: &Context,
    session: OperatorSessionId,
    actor: &Actor,
    app: AppId,
    id: ApprovalId,
) -> Result<Option<BulkRevocationId>, Failure> {
    let mut tx = context.pool.begin().await?;
    let vault = &context.vault;
    let approved = approvals::approve(&mut tx, vault, session, actor, app, id).await?;
    let CarriedOut { after, leads_to } = if let Some(app) = approved.app {
        carry_out_in_app(&mut tx, context, actor, app, &approved).await?
    } else {
        carry_out_in_deployment(&mut tx, actor, &approved).await?;
        CarriedOut::default()
    };
    fail::fail_point!("approvals::before_commit");
    tx.commit().await?;
    fail::fail_point!("approvals::committed");
    match after {
        After::Nothing => {}
        After::Effects(effects) => effects.apply(context),
        After::GivenUp(ended) => bulk_revocation::count_given_up(context, ended),
    }
    context.wake.notify_one();
    Ok(leads_to)
}

fn impossible(what: &str) -> Failure {
    Failure::Impossible(what.to_owned())
}

async fn carry_out_in_app(
    tx: &mut Conn,
    context: &Context,
    actor: &Actor,
    app: AppId,
    Approved { kind, request, permitted, .. }: &Approved,
) -> Result<CarriedOut, Failure> {
    match kind {
        Kind::BulkRevocation => {
            let asked: RequestedRevocation = parse(request)?;
            let new = asked.to_new(&context.vault, app);
            let new = new.ok_or_else(|| impossible("this release does not know its kind"))?;
            match bulk_revocation::create_in(tx, permitted, actor, &new).await? {
                CreateOutcome::New { id, .. } | CreateOutcome::Repeated(id) => {
                    Ok(CarriedOut { leads_to: Some(id), ..CarriedOut::default() })
                }
                CreateOutcome::KeyTaken | CreateOutcome::InProgress => {
                    Err(impossible("its idempotency key was used for another bulk revocation"))
                }
            }
        }
        Kind::Cancellation => {
            let RequestedCancellation { id, reason } = parse(request)?;
            let change = Change::Cancel { permitted, reason: reason.as_deref() };
            match bulk_revocation::change(tx, actor, app, id, change).await? {
                ChangeOutcome::Yes(ended) => {
                    Ok(CarriedOut { after: After::GivenUp(ended), leads_to: Some(id) })
                }
                ChangeOutcome::AtItsEnd => Err(impossible("the bulk revocation is at its end")),
                ChangeOutcome::Unknown => Err(impossible("the bulk revocation is gone")),
            }
        }
        Kind::Invalidation => {
            let RequestedInvalidation { id, reason } = parse(request)?;
            let (kind, reason) = (RevocationKind::Invalidate, Some(reason.as_str()));
            let request = Request { kind, reason, unconfirmed: Some(permitted) };
            let (outcome, effects) = revocation::revoke_in(tx, actor, app, id, request).await?;
            match outcome {
                RevokeOutcome::Acknowledged => Ok(After::Effects(effects).into()),
                RevokeOutcome::NotActive => Err(impossible("the connection is not active")),
                RevokeOutcome::Unknown => Err(impossible("the connection is gone")),
            }
        }
        Kind::Erasure => {
            let RequestedErasure { user } = parse(request)?;
            let name = users::name_of(tx, app, user).await?;
            let name = name.ok_or_else(|| impossible("the user is erased already"))?;
            erasure::begin_in(tx, &context.vault, permitted, actor, app, &name).await?;
            Ok(CarriedOut::default())
        }
        Kind::Operator | Kind::Role => Err(impossible("it is not of an app")),
    }
}

async fn carry_out_in_deployment(
    tx: &mut Conn,
    actor: &Actor,
    Approved { kind, request, permitted, .. }: &Approved,
) -> Result<(), Failure> {
    match kind {
        Kind::Operator => {
            let RequestedOperator { name, role, os_user } = parse(request)?;
            operators::add(tx, permitted, actor, &name, role, os_user.as_deref()).await?;
        }
        Kind::Role => {
            let RequestedRole { name, role } = parse(request)?;
            operators::change_role(tx, permitted, actor, &name, role).await?;
        }
        Kind::BulkRevocation | Kind::Cancellation | Kind::Invalidation | Kind::Erasure => {
            return Err(impossible("it is of an app"));
        }
    }
    Ok(())
}
