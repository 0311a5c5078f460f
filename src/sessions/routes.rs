//! `POST /v1/connect-sessions`.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{new_token, store, token_hash};
use crate::audit;
use crate::common::ids::SessionId;
use crate::database::Pool;
use crate::http::body::Body;
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems, WithJson};
use crate::users;
use crate::vault::Vault;

/// The user of a new session.
#[derive(Deserialize, ToSchema)]
pub struct SessionRequest {
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    #[schema(value_type = users::ClientUserID)]
    client_user_id: String,
}

/// A connect session. Give its token to the browser of its user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionResponse<'a> {
    /// The token, shown once.
    #[schema(example = "strs_0r8Y2mVq4Jc7pWn1Xh5Tz9Kd3Lb6Gf8s")]
    token: &'a str,
    /// When it ends: 30 minutes from now.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// The user.
    #[serde(rename = "clientUserID")]
    #[schema(example = "user-42")]
    client_user_id: &'a str,
}

fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// Makes a connect session: its bearer may hand in up to ten results of this user's and read the
/// connections that they became.
#[utoipa::path(
    post, path = "/v1/connect-sessions", tag = "Connections", operation_id = "createConnectSession",
    security(("bearer" = ["sessions:create"])),
    request_body = SessionRequest,
    responses(
        (status = 201, description = "A session", body = SessionResponse),
        Problems<(ForClients, WithJson, code::UserBeingErased)>,
    )
)]
pub async fn create(
    caller: Authorized<needs::SessionsCreate>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
    body: Body<SessionRequest>,
) -> Result<HttpResponse, Problem> {
    let client_user_id = body.0.client_user_id;
    users::check_client_user_id(&client_user_id)
        .map_err(|what| Problem::invalid_field("clientUserID", what))?;
    let (app, id) = (caller.client.app, SessionId::new());
    let token = new_token()?;
    let hash = token_hash(vault.secret_hashes(), token.expose());

    let user = users::ensure(&pool, &vault, app, &client_user_id).await?;
    if user.erasing {
        return Err(Problem::user_being_erased());
    }
    let mut tx = pool.begin().await?;
    let inserted = store::insert(&mut tx, id, app, user.id, &hash, &caller.client.id).await;
    let expires_at = match inserted {
        // The user was erased after the look-up.
        Err(error) if is_foreign_key_violation(&error) => return Err(Problem::user_being_erased()),
        inserted => inserted?,
    };
    let event = audit::Event {
        app,
        action: "session.created",
        outcome: "ok",
        user: Some(user.id),
        connection: None,
        reason: None,
    };
    audit::record(&mut tx, &caller.actor, &event).await?;
    tx.commit().await?;
    let body =
        SessionResponse { token: token.expose(), expires_at, client_user_id: &client_user_id };
    Ok(HttpResponse::Created().json(body))
}
