//! The problems that an operation may respond with, as types for `#[utoipa::path]`.
//!
//! `Problems<(ForClients, code::NotFound)>` stands for one documented response per status, with the
//! codes that share it. Statuses and titles come from the one table of codes, so that an operation
//! names codes alone.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::example::Example;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::problem::{Codes, Problem, ProblemCode, code};

/// The media type of a problem (RFC 9457 §3).
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! tuples {
    ($(($($name:ident)+))+) => { $(
        impl<$($name: Codes),+> Codes for ($($name,)+) {
            fn add_to(codes: &mut Vec<ProblemCode>) {
                $($name::add_to(codes);)+
            }
        }
    )+ };
}
tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) }

/// What any operation for callers with a token responds with: a query or an `Authorization` header
/// that is malformed, no token or no scope, a defect, an outage of the database or of a master key, an app that moves.
pub type ForClients = (
    code::InvalidRequest,
    code::Unauthorized,
    code::InsufficientScope,
    code::Internal,
    code::Unavailable,
    code::KeysUnavailable,
    code::AppMoving,
    code::AppMoved,
);

/// What a body may be refused with before it is parsed.
pub type WithBody = (code::RequestTimeout, code::BodyTooLarge);

/// What a JSON body may be refused with before it is parsed.
pub type WithJson = (WithBody, code::UnsupportedMediaType);

/// What a call of another API may end with.
pub type Calling = (code::TooManyRequests, code::UpstreamFailed, code::UpstreamTimeout);

/// The responses for these codes.
#[derive(Debug)]
pub struct Problems<C>(PhantomData<C>);

impl<C: Codes> IntoResponses for Problems<C> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut codes = Vec::new();
        C::add_to(&mut codes);
        let mut by_status: BTreeMap<String, Vec<ProblemCode>> = BTreeMap::new();
        for code in codes {
            by_status.entry(code.status().as_str().to_owned()).or_default().push(code);
        }
        by_status.into_iter().map(|(status, codes)| (status, response(&codes).into())).collect()
    }
}

/// Describes the response of codes that share a status.
fn response(codes: &[ProblemCode]) -> Response {
    let described = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title()));
    let examples = codes.iter().map(|code| {
        let location = format!("#/components/examples/{}", code.as_str());
        (code.as_str(), RefOr::Ref(Ref::new(location)))
    });
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let response = ResponseBuilder::new()
        .description(described.collect::<Vec<_>>().join(" "))
        .content(PROBLEM_JSON, content);
    let headers = codes.iter().filter_map(|code| headers(*code));
    headers.fold(response, |response, (name, header)| response.header(name, header)).build()
}

/// Describes the headers that come with a code.
fn headers(code: ProblemCode) -> Option<(&'static str, Header)> {
    match code {
        ProblemCode::Unauthorized | ProblemCode::InsufficientScope => {
            Some(("WWW-Authenticate", header(Type::String, "The challenge of RFC 6750 §3")))
        }
        ProblemCode::TooManyRequests
        | ProblemCode::Unavailable
        | ProblemCode::KeysUnavailable
        | ProblemCode::AppMoving => Some((
            "Retry-After",
            header(Type::Integer, "Seconds to wait before the request is repeated"),
        )),
        _ => None,
    }
}

fn header(kind: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

/// A body that is passed on as it is: any media type, any content.
#[derive(Debug)]
pub struct Anything;

impl utoipa::PartialSchema for Anything {
    fn schema() -> RefOr<utoipa::openapi::Schema> {
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        any.description(Some("Any content, passed on as it is"))
            .examples([json!({})])
            .build()
            .into()
    }
}

impl utoipa::ToSchema for Anything {}

/// A JSON object whose fields are another API's.
#[derive(Debug)]
pub struct AnyObject;

impl utoipa::PartialSchema for AnyObject {
    fn schema() -> RefOr<utoipa::openapi::Schema> {
        let object = ObjectBuilder::new().schema_type(Type::Object);
        object
            .description(Some("A JSON object whose fields are the provider's"))
            .examples([json!({ "accountID": "ntV7rbYoexYaGDRfSCzo" })])
            .build()
            .into()
    }
}

impl utoipa::ToSchema for AnyObject {}

/// Returns examples of the problems that the document has, by code.
#[must_use]
pub fn examples() -> BTreeMap<String, RefOr<Example>> {
    // No operation is documented for a method that its path does not have.
    let documented = |code: &&ProblemCode| **code != ProblemCode::MethodNotAllowed;
    let each = ProblemCode::ALL.iter().filter(documented).map(|code| {
        let mut example = Example::new();
        code.title().clone_into(&mut example.summary);
        example.value = Some(example_of(*code));
        (code.as_str().to_owned(), RefOr::T(example))
    });
    each.collect()
}

fn example_of(code: ProblemCode) -> Value {
    let request = "0199f3a2-7c1e-7d3b-9a54-3f2b8c0d6e71".to_owned();
    Problem::new(code, format!("{}.", code.title())).body(Some(request))
}
