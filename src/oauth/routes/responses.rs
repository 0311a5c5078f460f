//! The errors that an OAuth endpoint may respond with, as types for `#[utoipa::path]`.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::oauth::error::OAuthErrorCode::{
    self, InvalidClient, InvalidDpopProof, InvalidGrant, InvalidRequest, InvalidScope, ServerError,
    TemporarilyUnavailable, UnsupportedGrantType,
};

/// An error in OAuth's own format (RFC 6749 §5.2).
#[derive(ToSchema)]
#[schema(as = OAuthError)]
#[expect(dead_code, reason = "describes the response in the OpenAPI document")]
pub struct OAuthErrorShape {
    /// What kind of error it is.
    error: OAuthErrorName,
    /// What is wrong this time; for developers.
    #[schema(example = "Unknown client or wrong secret")]
    error_description: String,
}

/// The names of the errors.
pub struct OAuthErrorName;

impl PartialSchema for OAuthErrorName {
    fn schema() -> RefOr<utoipa::openapi::Schema> {
        let names = OAuthErrorCode::ALL.map(OAuthErrorCode::as_str);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build().into()
    }
}

impl ToSchema for OAuthErrorName {
    fn name() -> std::borrow::Cow<'static, str> {
        "OAuthErrorCode".into()
    }
}

macro_rules! errors {
    ($($(#[doc = $doc:literal])+ $name:ident: $($code:ident)+;)+) => { $(
        $(#[doc = $doc])+
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses(&[$($code),+])
            }
        }
    )+ };
}
errors! {
    /// Of the token endpoint (RFC 6749 §5.2).
    TokenErrors: InvalidRequest InvalidScope InvalidDpopProof UnsupportedGrantType;
    /// Of the revocation endpoint (RFC 7009 §2.2.1).
    RevocationErrors: InvalidRequest InvalidGrant;
    /// Of the introspection endpoint (RFC 7662 §2.3).
    IntrospectionErrors: InvalidRequest;
}

/// The responses of an endpoint that refuses a request with these codes.
fn responses(refusals: &[OAuthErrorCode]) -> BTreeMap<String, RefOr<Response>> {
    let busy = [InvalidClient, TemporarilyUnavailable];
    let each: [(&str, &str, &[OAuthErrorCode]); 7] = [
        ("400", "The request is refused", refusals),
        (
            "401",
            "The client is unknown, or its secret or assertion is wrong or missing",
            &[InvalidClient],
        ),
        ("408", "The body did not arrive in time", &[InvalidRequest]),
        ("413", "The body is too large", &[InvalidRequest]),
        ("429", "Too many wrong credentials, or too many requests at once", &busy),
        ("500", "A defect of the service", &[ServerError]),
        ("503", "The service cannot work at the moment", &[TemporarilyUnavailable]),
    ];
    let each = each.map(|(status, what, codes)| (status.to_owned(), response(status, what, codes)));
    each.into_iter().collect()
}

fn response(status: &str, what: &str, codes: &[OAuthErrorCode]) -> RefOr<Response> {
    let names: Vec<_> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let name = codes.first().map(|code| code.as_str());
    let example = json!({ "error": name, "error_description": format!("{what}.") });
    let schema = Ref::from_schema_name("OAuthError");
    let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
    let response = ResponseBuilder::new()
        .description(format!("{what}: {}.", names.join(", ")))
        .content("application/json", content);
    let header = |kind, description: &str| {
        let schema = ObjectBuilder::new().schema_type(kind).build();
        HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
    };
    let response = match status {
        "401" => {
            response.header("WWW-Authenticate", header(Type::String, "HTTP Basic (RFC 7617 §2)"))
        }
        "429" | "503" => response.header("Retry-After", header(Type::Integer, "Seconds")),
        _ => response,
    };
    response.build().into()
}
