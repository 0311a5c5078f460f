//! Strict query parameters under `/v1`: an unknown one is an error, because ignoring a misspelt
//! filter would select everything.
//!
//! The `OpenAPI` document alone says which ones an endpoint has.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage};
use serde_json::Value;

use super::openapi;
use crate::http::caller::Authentication;
use crate::http::problem::{Problem, ProblemCode};

/// The query parameters of every operation, by method in lower case and path.
static PARAMETERS: LazyLock<HashMap<(String, String), HashSet<String>>> = LazyLock::new(|| {
    let document = openapi::document();
    let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations
            .map(move |(method, operation)| ((method.clone(), path.clone()), names(operation)))
    });
    operations.collect()
});

fn names(operation: &Value) -> HashSet<String> {
    let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let of_query = parameters.filter(|parameter| parameter["in"] == "query");
    of_query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect()
}

/// Returns whether the query is passed on to another API.
fn passes_on(pattern: &str) -> bool {
    ["/v1/connections/{id}/dapi/", "/v1/upstreams/{name}/proxy/"]
        .iter()
        .any(|prefix| pattern.starts_with(prefix))
}

/// Refuses unknown query parameters. A caller without valid credentials gets that error first.
pub(super) async fn strict(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if !req.query_string().is_empty() && is_authenticated(&req) {
        check(&req)?;
    }
    next.call(req).await
}

fn is_authenticated(req: &ServiceRequest) -> bool {
    req.extensions().get::<Authentication>().is_some_and(|found| found.0.is_ok())
}

fn check(req: &ServiceRequest) -> Result<(), Problem> {
    let Some(pattern) = req.match_pattern().filter(|pattern| !passes_on(pattern)) else {
        return Ok(());
    };
    // A request without an operation gets its own error.
    let operation = (req.method().as_str().to_ascii_lowercase(), pattern);
    let Some(allowed) = PARAMETERS.get(&operation) else { return Ok(()) };
    let mut given = HashSet::new();
    for (name, _) in url::form_urlencoded::parse(req.query_string().as_bytes()) {
        if !allowed.contains(name.as_ref()) {
            return Err(unknown(&name));
        }
        if !given.insert(name.clone()) {
            return Err(Problem::invalid_field(&name, "is given twice"));
        }
    }
    Ok(())
}

/// Returns the problem of an unknown parameter. It repeats the name only if it looks like one: it
/// might be a misplaced secret.
fn unknown(name: &str) -> Problem {
    let is_name = !name.is_empty()
        && name.len() <= 32
        && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_' || c == '-');
    if is_name {
        return Problem::invalid_field(name, "is not a parameter of this endpoint");
    }
    let detail = "The query has a parameter that this endpoint does not take.";
    Problem::new(ProblemCode::InvalidRequest, detail).with("field", Value::from("query"))
}
