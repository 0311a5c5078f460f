//! `/v1/admin/revocations`: revoking many connections at once.

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::approvals::routes::awaits;
use crate::approvals::{AwaitingApproval, Gated};
use crate::common::ids::{AppId, BulkRevocationId};
use crate::common::text;
use crate::connections::bulk_revocation::{
    BulkRevocation, Change, ChangeOutcome, CreateOutcome, DEFAULT_PER_SECOND, DryRun,
    MAX_PER_SECOND, NewBulkRevocation, RevocationFilter,
};
use crate::connections::effects::RevocationEnd;
use crate::connections::input::schema::{DapiName, Reason};
use crate::connections::input::{client_user_id, reason};
use crate::connections::model::RevocationKind;
use crate::connections::{Context, bulk_revocation};
use crate::database::Conn;
use crate::http::body::{Body, Id, OptionalBody, UrlQuery};
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::operators::{Operators, query_problem};
use crate::http::paging::PageQuery;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems, WithJson};
use crate::users::ClientUserID;

type Admin = Authorized<needs::Admin>;

/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY: usize = 255;

/// Which connections: those for which everything holds that is given.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RevocationFilter, min_properties = 1)]
pub struct Filter {
    /// Of one of these users.
    #[serde(rename = "clientUserIDs")]
    #[schema(value_type = Option<Vec<ClientUserID>>, min_items = 1)]
    client_user_ids: Option<Vec<String>>,
    /// One of these: `conn_…`, or Dapi's `connectionID`.
    #[serde(rename = "connectionIDs")]
    #[schema(value_type = Option<Vec<DapiName>>, min_items = 1)]
    connection_ids: Option<Vec<String>>,
    /// Received before this.
    #[serde(default, with = "time::serde::rfc3339::option")]
    created_before: Option<OffsetDateTime>,
    /// Received at this time or after it.
    #[serde(default, with = "time::serde::rfc3339::option")]
    created_after: Option<OffsetDateTime>,
    /// Handed in by this OAuth client, or in a connect session that it made.
    #[serde(rename = "clientID")]
    #[schema(value_type = Option<DapiName>)]
    client_id: Option<String>,
    /// Every connection of the app. Stands alone.
    #[serde(default)]
    all: bool,
}

/// A request to revoke many connections.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkRevocationRequest {
    /// `delink` or `invalidate`.
    #[schema(value_type = RevocationKind, example = "invalidate")]
    kind: String,
    /// Recorded in the audit trail.
    #[schema(value_type = Reason, example = "client secret leaked")]
    reason: String,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// How many connections a second are delinked, at most.
    #[schema(minimum = 1, maximum = 1000, default = 20)]
    per_second: Option<i32>,
    /// Which connections.
    filter: Filter,
}

/// What became of the request.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
pub enum RevocationAccepted {
    /// It is in force.
    InForce(Box<BulkRevocation>),
    /// It waits for a second person.
    Waits(AwaitingApproval),
}

/// A request that passed its checks.
struct Checked {
    kind: RevocationKind,
    per_second: i32,
    matching: RevocationFilter,
}

impl BulkRevocationRequest {
    fn check(&self) -> Result<Checked, Problem> {
        let kind = RevocationKind::parse(&self.kind)
            .ok_or_else(|| Problem::invalid_field("kind", "must be one of delink, invalidate"))?;
        reason(&self.reason)?;
        let per_second = self.per_second.unwrap_or(DEFAULT_PER_SECOND);
        if !(1..=MAX_PER_SECOND).contains(&per_second) {
            let what = format!("must be a whole number from 1 to {MAX_PER_SECOND}");
            return Err(Problem::invalid_field("perSecond", what));
        }
        Ok(Checked { kind, per_second, matching: self.filter.check()? })
    }
}

impl Filter {
    fn check(&self) -> Result<RevocationFilter, Problem> {
        for user in self.client_user_ids.iter().flatten() {
            client_user_id(user)?;
        }
        let names = self.connection_ids.iter().flatten().chain(&self.client_id);
        for name in names {
            crate::connections::input::sound(
                "filter",
                text::check(name, crate::connections::input::MAX_NAME),
            )?;
        }
        let matching = RevocationFilter {
            client_user_ids: self.client_user_ids.clone(),
            connection_ids: self.connection_ids.clone(),
            created_before: self.created_before,
            created_after: self.created_after,
            client_id: self.client_id.clone(),
            all: self.all,
        };
        matching.check().map_err(|what| Problem::invalid_field("filter", what))?;
        Ok(matching)
    }
}

/// Reads the `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header §2.1): a string of Structured Fields
/// (RFC 9651 §3.3.3), whose quotation marks may be left out.
fn idempotency_key(req: &HttpRequest) -> Result<Option<String>, Problem> {
    let refuse = || {
        let what = "must be one string of up to 255 printable characters";
        Problem::invalid_field("Idempotency-Key", what)
    };
    let mut values = req.headers().get_all("idempotency-key");
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse());
    }
    let text = value.to_str().map_err(|_| refuse())?.trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let valid = !bare.is_empty()
        && bare.len() <= MAX_KEY
        && bare.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
    valid.then(|| Some(bare.to_owned())).ok_or_else(refuse)
}

/// Revokes many connections at once.
///
/// When this is answered, none of them is usable any more, however many they are: `POST …/token` and calls
/// answer 409, `GET /v1/connections/{id}` returns `revoking`. `matched` is `null` until they are counted;
/// until then lists and counts may show them as they were. They are delinked at Dapi in the background, `perSecond`
/// at a time. The same request under the same `Idempotency-Key` creates nothing new.
#[utoipa::path(
    post, path = "/v1/admin/revocations", tag = "Administration", operation_id = "createRevocation",
    security(("bearer" = ["admin"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: one string of up to 255 printable characters", min_length = 1, max_length = 255, pattern = "^[!#-\\[\\]-~]+$", example = "incident-2026-11-21")),
    request_body = BulkRevocationRequest,
    responses(
        (status = 200, description = "`dryRun`: what would be revoked", body = DryRun),
        (status = 202, description = "In force; the connections are being delinked at Dapi. Or, with four eyes on and more of them than one person may revoke, nothing was done and it waits for a second person: the answer is `{\"approval\": …}` and `Location` leads to it", body = RevocationAccepted, headers(("Location" = String, description = "The bulk revocation, or the approval"))),
        Problems<(ForClients, WithJson, code::RequestInProgress, code::IdempotencyKeyReused, code::TooManyRequests)>,
    )
)]
pub async fn create(
    caller: Admin,
    context: web::Data<Context>,
    operators: web::Data<Operators>,
    req: HttpRequest,
    body: Body<BulkRevocationRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(&req)?;
    let (app, body) = (caller.client.app, body.0);
    let Checked { kind, per_second, matching } = body.check()?;
    if body.dry_run {
        let mut conn = operators.begin(app).await?;
        let found =
            bulk_revocation::dry_run(&mut conn, app, &matching).await.map_err(query_problem)?;
        return Ok(HttpResponse::Ok().json(found));
    }
    // Detached: a request that arrived whole is carried out even if its caller disconnects.
    let creating = {
        let (context, actor) = (context.clone(), caller.actor.clone());
        async move {
            let request_hash = bulk_revocation::request_hash(
                &context.vault,
                app,
                kind,
                &body.reason,
                per_second,
                &matching,
            );
            let new = NewBulkRevocation {
                app,
                kind,
                reason: &body.reason,
                matching: &matching,
                per_second,
                idempotency_key: key.as_deref(),
                request_hash,
            };
            let mut conn = context.pool.acquire().await?;
            let (vault, four_eyes) = (&context.vault, context.four_eyes);
            bulk_revocation::create(&mut conn, vault, four_eyes, &actor, &new).await
        }
    };
    let outcome = match detached(&context.tasks, creating).await?? {
        Gated::Done(outcome) => outcome,
        Gated::Awaits(approval) => return Ok(awaits(approval)),
    };
    let id = created_id(&context, &outcome)?;
    let mut conn = context.pool.acquire().await?;
    let created =
        bulk_revocation::find(&mut conn, app, id).await?.ok_or_else(Problem::not_found)?;
    let location = (LOCATION, format!("/v1/admin/revocations/{id}"));
    Ok(HttpResponse::Accepted().insert_header(location).json(created))
}

/// Returns the id of the bulk revocation that this request created, now or before. Counts and wakes the
/// background work if it is new.
pub fn created_id(context: &Context, outcome: &CreateOutcome) -> Result<BulkRevocationId, Problem> {
    match *outcome {
        CreateOutcome::New { id, ended } => {
            context.metrics.revocations(RevocationEnd::Confirmed, ended);
            context.wake.notify_one();
            Ok(id)
        }
        CreateOutcome::Repeated(id) => Ok(id),
        CreateOutcome::InProgress => {
            let detail = "Repeat the request in a moment: it is answered once the first one is.";
            Err(Problem::new(ProblemCode::RequestInProgress, detail).retry_after(1))
        }
        CreateOutcome::KeyTaken => {
            let detail = "Repeat the request as it was, or give another one a key of its own.";
            Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail))
        }
    }
}

/// One page of bulk revocations, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkRevocationList {
    /// The bulk revocations. `errors` is filled by `GET …/{id}` only.
    revocations: Vec<BulkRevocation>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

/// Lists the app's bulk revocations, newest first.
#[utoipa::path(
    get, path = "/v1/admin/revocations", tag = "Administration", operation_id = "listRevocations",
    security(("bearer" = ["admin"])),
    params(PageQuery),
    responses(
        (status = 200, description = "One page", body = BulkRevocationList),
        Problems<ForClients>,
    )
)]
pub async fn list(
    caller: Admin,
    context: web::Data<Context>,
    query: UrlQuery<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let (cursor, limit) = query.0.page()?;
    let mut conn = context.pool.acquire().await?;
    let page = bulk_revocation::list(&mut conn, caller.client.app, cursor, limit).await?;
    Ok(HttpResponse::Ok().json(BulkRevocationList {
        revocations: page.items,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// One bulk revocation and its progress.
#[utoipa::path(
    get, path = "/v1/admin/revocations/{id}", tag = "Administration", operation_id = "getRevocation",
    security(("bearer" = ["admin"])),
    params(("id" = BulkRevocationId, Path, description = "The bulk revocation")),
    responses(
        (status = 200, description = "The bulk revocation", body = BulkRevocation),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<BulkRevocationId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let found = bulk_revocation::find(&mut conn, caller.client.app, id.0).await?;
    found.map(|found| HttpResponse::Ok().json(found)).ok_or_else(Problem::not_found)
}

macro_rules! change {
    ($(#[$doc:meta])* $name:ident, $path:literal, $operation:literal, $change:ident) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "Administration", operation_id = $operation,
            security(("bearer" = ["admin"])),
            params(("id" = BulkRevocationId, Path, description = "The bulk revocation")),
            responses(
                (status = 200, description = "The bulk revocation as it is now", body = BulkRevocation),
                Problems<(ForClients, code::NotFound, code::OrderEnded)>,
            )
        )]
        pub async fn $name(
            caller: Admin,
            context: web::Data<Context>,
            id: Id<BulkRevocationId>,
        ) -> Result<HttpResponse, Problem> {
            change(&caller, &context, id.0, Change::$change).await
        }
    };
}

change!(
    /// Stops delinking. The connections stay unusable, with their secrets sealed, until the
    /// bulk revocation is resumed or cancelled. Repeatable.
    pause, "/v1/admin/revocations/{id}/pause", "pauseRevocation", Pause
);
change!(
    /// Goes on delinking. Repeatable.
    resume, "/v1/admin/revocations/{id}/resume", "resumeRevocation", Resume
);
/// Why a bulk revocation is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevocationCancellation)]
pub struct Cancellation {
    /// For the audit trail, and for the second person that four eyes ask for.
    #[serde(default)]
    #[schema(value_type = Option<Reason>)]
    pub reason: Option<String>,
}

/// Gives up every delinking that Dapi has not confirmed: the connection ends `invalidated`, unconfirmed, and its
/// secrets are destroyed, so that it can never be delinked. Nothing becomes usable again. Repeatable.
#[utoipa::path(
    post, path = "/v1/admin/revocations/{id}/cancel", tag = "Administration", operation_id = "cancelRevocation",
    security(("bearer" = ["admin"])),
    params(("id" = BulkRevocationId, Path, description = "The bulk revocation")),
    request_body = Option<Cancellation>,
    responses(
        (status = 200, description = "The bulk revocation as it is now", body = BulkRevocation),
        (status = 202, description = "Nothing was done: with four eyes on, it waits for a second person", body = AwaitingApproval, headers(("Location" = String, description = "The approval"))),
        Problems<(ForClients, WithJson, code::NotFound, code::OrderEnded, code::TooManyRequests)>,
    )
)]
pub async fn cancel(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<BulkRevocationId>,
    body: OptionalBody<Cancellation>,
) -> Result<HttpResponse, Problem> {
    let given = body.0.and_then(|body| body.reason);
    if let Some(given) = &given {
        reason(given)?;
    }
    let (mut conn, app) = (context.pool.acquire().await?, caller.client.app);
    let (vault, four_eyes, actor) = (&context.vault, context.four_eyes, &caller.actor);
    let given = given.as_deref();
    let cancelled =
        bulk_revocation::cancel(&mut conn, vault, four_eyes, actor, app, id.0, given).await?;
    match cancelled {
        Gated::Done(outcome) => changed(&context, &mut conn, app, id.0, outcome).await,
        Gated::Awaits(approval) => Ok(awaits(approval)),
    }
}

async fn change(
    caller: &Admin,
    context: &Context,
    id: BulkRevocationId,
    change: Change<'_>,
) -> Result<HttpResponse, Problem> {
    let (mut conn, app) = (context.pool.acquire().await?, caller.client.app);
    let outcome = bulk_revocation::change(&mut conn, &caller.actor, app, id, change).await?;
    changed(context, &mut conn, app, id, outcome).await
}

/// Answers a change, and counts and wakes what it affects.
async fn changed(
    context: &Context,
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
    outcome: ChangeOutcome,
) -> Result<HttpResponse, Problem> {
    match outcome {
        ChangeOutcome::Yes(ended) => bulk_revocation::count_given_up(context, ended),
        ChangeOutcome::AtItsEnd => {
            let detail = "It was cancelled, or it has finished.";
            return Err(Problem::new(ProblemCode::OrderEnded, detail));
        }
        ChangeOutcome::Unknown => return Err(Problem::not_found()),
    }
    context.wake.notify_one();
    let changed = bulk_revocation::find(conn, app, id).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(changed))
}
