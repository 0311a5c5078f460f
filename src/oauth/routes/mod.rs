//! The OAuth endpoints, one per file, and the administration of clients.

pub mod admin;
mod bodies;
pub mod introspect;
pub mod metadata;
mod names;
pub mod responses;
pub mod revoke;
pub mod token;

use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::{HttpResponse, HttpResponseBuilder};

/// Starts a response that no cache stores (RFC 6749 §5.1).
fn uncached() -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache"));
    answer
}

/// What the endpoints for a token that exists take, as a form or as JSON; id and secret may come by
/// HTTP Basic instead.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
pub struct ExistingToken {
    /// The access token.
    #[schema(min_length = 1, example = "eyJhbGciOiJFUzI1NiJ9.claims.c2lnbmF0dXJl")]
    token: String,
    /// What kind of token it is; only access tokens exist, so that it makes no difference.
    #[schema(example = "access_token")]
    token_type_hint: Option<String>,
    /// The client's id, where it does not come by HTTP Basic.
    #[schema(example = "payroll7Qm2Xv9")]
    client_id: Option<String>,
    /// The client's secret, where it does not come by HTTP Basic.
    #[schema(format = Password, example = "n3Vd8sK1pZ6tY0wQ4rB7mX2cJ5hG9fLa")]
    client_secret: Option<String>,
    /// The type of `client_assertion`.
    client_assertion_type: Option<AssertionType>,
    /// A JWT in place of a secret: signed by the client's key (RFC 7523), or its workload's token.
    #[schema(format = Password)]
    client_assertion: Option<String>,
}

/// The one type of client assertion (RFC 7523 §2.2).
#[derive(utoipa::ToSchema)]
pub enum AssertionType {
    /// A JWT.
    #[schema(rename = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")]
    JwtBearer,
}
