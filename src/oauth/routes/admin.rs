//! `/v1/admin/clients`: the clients of the caller's own app.

use std::time::Duration;

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::ClientSecretId;
use crate::common::paging::{DEFAULT_LIMIT, MAX_LIMIT, PageCursor};
use crate::common::scope::Scopes;
use crate::common::secret::SecretText;
use crate::database::Pool;
use crate::http::body::{Body, OptionalBody, UrlQuery};
use crate::http::caller::{Authorized, Client, needs};
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems, WithJson};
use crate::oauth::clients::{
    self, After, ClientError, ClientInfo, DEFAULT_TOKEN_LIFETIME, NewClient,
};
use crate::oauth::proofs::Proofs;
use crate::oauth::registration;
use crate::oauth::routes::bodies::{AddSecret, ChangeClient, CreateClient};
use crate::oauth::secrets::{self, DEFAULT_OVERLAP, MAX_OVERLAP, Made, SecretInfo, Shown};
use crate::oauth::tokens::Issuer;
use crate::vault::Vault;

type Admin = Authorized<needs::Admin>;

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// At most so many.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<u8>,
    /// The `nextCursor` of the page before.
    #[param(value_type = PageCursor, required = false, example = "MTc2NDE3MDQwMDAwMDAwMDAwMCBwYXlyb2xsN1FtMlh2OQ")]
    cursor: Option<String>,
}

/// One page of clients, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientList {
    /// The clients, without their secrets.
    clients: Vec<ClientInfo>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

/// A new secret, shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedSecret<'a> {
    /// The client.
    #[serde(rename = "clientID")]
    #[schema(example = "payroll7Qm2Xv9")]
    client_id: &'a str,
    /// The secret's id.
    id: ClientSecretId,
    /// The secret in clear text.
    #[schema(example = "n3Vd8sK1pZ6tY0wQ4rB7mX2cJ5hG9fLa")]
    client_secret: &'a str,
    /// All live secrets of the client, this one included.
    secrets: Vec<SecretInfo>,
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unknown(_) => Self::not_found(),
            ClientError::TwoSecrets => {
                let detail = "End one by DELETE, or send `oldSecretsEndIn: 0` to end both at once.";
                Self::new(ProblemCode::TwoSecrets, detail)
            }
            ClientError::Registration(invalid) => invalid.into(),
            ClientError::Bootstrap => Self::new(ProblemCode::InvalidRequest, format!("{error}.")),
            ClientError::Vault(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

/// Checks a client's id in a path; an impossible one is answered as an unknown one.
fn known(id: &str) -> Result<&str, Problem> {
    let sound = id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric());
    if sound { Ok(id) } else { Err(Problem::not_found()) }
}

/// Refuses to grant scopes that the caller lacks, whether by creating a client, by enabling one, or
/// by a new secret for it. The caller's token decides, which may be narrower than its client; for
/// external scopes, its client.
fn may_grant(
    caller: &Client,
    issuer: &Issuer,
    own: Scopes,
    external: &ExternalScopes,
) -> Result<(), Problem> {
    let lacking: Vec<_> = own.iter().filter(|scope| !caller.scopes.contains(*scope)).collect();
    let lacking: Scopes = lacking.into_iter().collect();
    if !lacking.is_empty() {
        return Err(Problem::insufficient_scope(lacking));
    }
    let held = issuer.directory().client(&caller.id);
    if held.is_some_and(|client| external.is_subset_of(&client.external_scopes))
        || external.is_empty()
    {
        return Ok(());
    }
    Err(Problem::insufficient_scope(external.names().join(" ")))
}

/// Makes a client of the caller's app. Its secret is in this answer and nowhere else.
///
/// A client with keys or a workload is made without a secret. A caller grants no scope that it lacks itself: `insufficient_scope`.
#[utoipa::path(
    post, path = "/v1/admin/clients", tag = "Administration", operation_id = "createClient",
    security(("bearer" = ["admin"])),
    request_body = CreateClient,
    responses(
        (status = 201, description = "The client with its secret, if it has one, shown this once", body = Made, headers(("Location" = String, description = "The client"))),
        Problems<(ForClients, WithJson)>,
    )
)]
pub async fn create(
    caller: Admin,
    issuer: web::Data<Issuer>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
    proofs: web::Data<Proofs>,
    body: Body<CreateClient>,
) -> Result<HttpResponse, Problem> {
    let (scopes, terms) = (body.0.scopes()?, body.0.terms()?);
    let lifetime = body.0.token_lifetime.unwrap_or(DEFAULT_TOKEN_LIFETIME);
    let new = NewClient {
        app: caller.client.app,
        name: &body.0.name,
        scopes,
        token_lifetime: Duration::from_secs(lifetime.into()),
    };
    clients::check(&new, &terms)?;
    registration::check(&terms.registration, proofs.reach())?;
    may_grant(&caller.client, &issuer, scopes, &terms.external_scopes)?;
    let mut conn = pool.acquire().await?;
    let (id, secret) = if terms.registration.authenticates() {
        (clients::create_without_secret(&mut conn, &caller.actor, &new, &terms).await?, None)
    } else {
        let made = clients::create_on(&mut conn, &vault, &caller.actor, &new, &terms).await?;
        (made.id, Some(made.secret))
    };
    let client = clients::find(&mut conn, Some(new.app), &id).await?;
    let mut answer = HttpResponse::Created();
    answer.insert_header((LOCATION, format!("/v1/admin/clients/{id}")));
    let client_secret = secret.as_ref().map(SecretText::expose);
    Ok(answer.json(Made { client: &client, client_secret }))
}

/// The clients of the caller's app, newest first, without their secrets.
#[utoipa::path(
    get, path = "/v1/admin/clients", tag = "Administration", operation_id = "listClients",
    security(("bearer" = ["admin"])),
    params(ListQuery),
    responses(
        (status = 200, description = "One page", body = ClientList),
        Problems<ForClients>,
    )
)]
pub async fn list(
    caller: Admin,
    pool: web::Data<Pool>,
    query: UrlQuery<ListQuery>,
) -> Result<HttpResponse, Problem> {
    let limit = query.0.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::invalid_field("limit", "must be from 1 to 100"));
    }
    let no_cursor = || Problem::invalid_field("cursor", "not a cursor of this list");
    let after = query.0.cursor.as_deref().map(|text| read_cursor(text).ok_or_else(no_cursor));
    let after = after.transpose()?;
    let mut conn = pool.acquire().await?;
    // One more than the page holds, to know whether there is another.
    let mut found =
        clients::list(&mut conn, Some(caller.client.app), after.as_ref(), i64::from(limit) + 1)
            .await?;
    let more = found.len() > usize::from(limit);
    found.truncate(limit.into());
    let next = found.last().filter(|_| more).map(cursor_behind);
    Ok(HttpResponse::Ok().json(ClientList { clients: found, next_cursor: next }))
}

fn cursor_behind(client: &ClientInfo) -> String {
    let at = client.created_at.unix_timestamp_nanos();
    URL_SAFE_NO_PAD.encode(format!("{at} {}", client.id))
}

fn read_cursor(text: &str) -> Option<After> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (at, id) = text.split_once(' ')?;
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(at.parse().ok()?).ok()?;
    Some(After { created_at, id: known(id).ok()?.to_owned() })
}

/// One client of the caller's app, and since when its secrets live.
#[utoipa::path(
    get, path = "/v1/admin/clients/{clientID}", tag = "Administration", operation_id = "getClient",
    security(("bearer" = ["admin"])),
    params(("clientID" = String, Path, description = "The client", pattern = "^[A-Za-z0-9]{1,64}$", example = "payroll7Qm2Xv9")),
    responses(
        (status = 200, description = "The client", body = Shown),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn show(
    caller: Admin,
    pool: web::Data<Pool>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let mut conn = pool.acquire().await?;
    let client = clients::find(&mut conn, Some(caller.client.app), known(&id)?).await?;
    let secrets = secrets::live(&mut conn, &client.id).await?;
    Ok(HttpResponse::Ok().json(Shown { client: &client, secrets: &secrets }))
}

/// Refuses a client and its tokens from now on, or lets it in again; changes how it proves who it is.
///
/// A caller lets in no client that may do more than itself, and changes nothing else of one: `insufficient_scope`. The
/// bootstrap client's keys follow the environment: `invalid_request`.
#[utoipa::path(
    patch, path = "/v1/admin/clients/{clientID}", tag = "Administration", operation_id = "updateClient",
    security(("bearer" = ["admin"])),
    params(("clientID" = String, Path, description = "The client", pattern = "^[A-Za-z0-9]{1,64}$", example = "payroll7Qm2Xv9")),
    request_body = ChangeClient,
    responses(
        (status = 200, description = "The client", body = Shown),
        Problems<(ForClients, WithJson, code::NotFound)>,
    )
)]
pub async fn change(
    caller: Admin,
    issuer: web::Data<Issuer>,
    pool: web::Data<Pool>,
    proofs: web::Data<Proofs>,
    id: web::Path<String>,
    body: Body<ChangeClient>,
) -> Result<HttpResponse, Problem> {
    let (app, id, disabled) = (Some(caller.client.app), known(&id)?, body.0.disabled);
    let change = body.0.registration();
    if disabled.is_none() && change.is_empty() {
        return Err(Problem::new(ProblemCode::InvalidRequest, "Nothing is to be changed."));
    }
    let mut conn = pool.acquire().await?;
    let client = clients::find(&mut conn, app, id).await?;
    // Taking away is always allowed. Keys are as good as a secret: they let their holder be the client.
    if disabled != Some(true) || !change.is_empty() {
        may_grant(&caller.client, &issuer, client.scopes, &client.external_scopes)?;
    }
    let (actor, reach) = (&caller.actor, proofs.reach());
    clients::change(&mut conn, actor, app, id, disabled, &change, reach).await?;
    let client = clients::find(&mut conn, app, id).await?;
    let secrets = secrets::live(&mut conn, id).await?;
    Ok(HttpResponse::Ok().json(Shown { client: &client, secrets: &secrets }))
}

/// Deletes a client with its secrets; its tokens end within five seconds on every replica.
///
/// The bootstrap client follows the environment: `invalid_request`.
#[utoipa::path(
    delete, path = "/v1/admin/clients/{clientID}", tag = "Administration", operation_id = "deleteClient",
    security(("bearer" = ["admin"])),
    params(("clientID" = String, Path, description = "The client", pattern = "^[A-Za-z0-9]{1,64}$", example = "payroll7Qm2Xv9")),
    responses(
        (status = 204, description = "Deleted"),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn delete(
    caller: Admin,
    pool: web::Data<Pool>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let mut conn = pool.acquire().await?;
    clients::delete(&mut conn, &caller.actor, Some(caller.client.app), known(&id)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives a client a second secret and the first an end.
///
/// The bootstrap client's secret follows the environment: `invalid_request`. A client that may do more than the caller
/// gets none: `insufficient_scope`.
#[utoipa::path(
    post, path = "/v1/admin/clients/{clientID}/secrets", tag = "Administration", operation_id = "createClientSecret",
    security(("bearer" = ["admin"])),
    params(("clientID" = String, Path, description = "The client", pattern = "^[A-Za-z0-9]{1,64}$", example = "payroll7Qm2Xv9")),
    request_body = Option<AddSecret>,
    responses(
        (status = 201, description = "The secret, shown this once, and the secrets as they are now", body = CreatedSecret),
        Problems<(ForClients, WithJson, code::NotFound, code::TwoSecrets)>,
    )
)]
pub async fn add_secret(
    caller: Admin,
    issuer: web::Data<Issuer>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
    id: web::Path<String>,
    body: OptionalBody<AddSecret>,
) -> Result<HttpResponse, Problem> {
    let overlap = body.0.and_then(|body| body.old_secrets_end_in).unwrap_or(DEFAULT_OVERLAP);
    if overlap > MAX_OVERLAP {
        return Err(Problem::invalid_field("oldSecretsEndIn", "must be at most 2592000 seconds"));
    }
    let (app, id) = (Some(caller.client.app), known(&id)?);
    let overlap = Duration::from_secs(overlap.into());
    let mut conn = pool.acquire().await?;
    let client = clients::find(&mut conn, app, id).await?;
    may_grant(&caller.client, &issuer, client.scopes, &client.external_scopes)?;
    let new = secrets::rotate(&mut conn, &vault, &caller.actor, app, id, overlap).await?;
    Ok(HttpResponse::Created().json(CreatedSecret {
        client_id: id,
        id: new.id,
        client_secret: new.secret.expose(),
        secrets: new.live,
    }))
}

/// Ends one of a client's secrets now.
///
/// The bootstrap client's secret follows the environment: `invalid_request`.
#[utoipa::path(
    delete, path = "/v1/admin/clients/{clientID}/secrets/{secretID}", tag = "Administration", operation_id = "deleteClientSecret",
    security(("bearer" = ["admin"])),
    params(
        ("clientID" = String, Path, description = "The client", pattern = "^[A-Za-z0-9]{1,64}$", example = "payroll7Qm2Xv9"),
        ("secretID" = ClientSecretId, Path, description = "The secret"),
    ),
    responses(
        (status = 204, description = "Ended"),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn end_secret(
    caller: Admin,
    pool: web::Data<Pool>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (client, secret) = path.into_inner();
    let secret = secret.parse().map_err(|_| Problem::not_found())?;
    let (app, client) = (Some(caller.client.app), known(&client)?);
    let mut conn = pool.acquire().await?;
    if secrets::end(&mut conn, &caller.actor, app, client, secret).await? {
        return Ok(HttpResponse::NoContent().finish());
    }
    Err(Problem::not_found())
}
