//! Queries under `/v1` are read strictly: a parameter that an endpoint does not take is refused rather than
//! passed over, because a misspelt filter would otherwise mean everything.
//!
//! What an endpoint takes stands in the `OpenAPI` document, and there alone.

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

/// The parameters of every operation's query, by method in lower case and path.
static TAKEN: LazyLock<HashMap<(String, String), HashSet<String>>> = LazyLock::new(|| {
    let document = serde_json::to_value(openapi::document()).unwrap_or_default();
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

/// Endpoints whose query is another API's business.
fn passes_on(pattern: &str) -> bool {
    ["/v1/connections/{id}/dapi/", "/v1/upstreams/{name}/proxy/"]
        .iter()
        .any(|prefix| pattern.starts_with(prefix))
}

/// Refuses a query that is not what the endpoint takes. Who is not let in hears of that first.
pub(super) async fn strict(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if !req.query_string().is_empty() && is_let_in(&req) {
        check(&req)?;
    }
    next.call(req).await
}

fn is_let_in(req: &ServiceRequest) -> bool {
    req.extensions().get::<Authentication>().is_some_and(|found| found.0.is_ok())
}

fn check(req: &ServiceRequest) -> Result<(), Problem> {
    let Some(pattern) = req.match_pattern().filter(|pattern| !passes_on(pattern)) else {
        return Ok(());
    };
    // What has no operation is refused as such.
    let operation = (req.method().as_str().to_ascii_lowercase(), pattern);
    let Some(taken) = TAKEN.get(&operation) else { return Ok(()) };
    let mut given = HashSet::new();
    for (name, _) in url::form_urlencoded::parse(req.query_string().as_bytes()) {
        if !taken.contains(name.as_ref()) {
            return Err(unknown(&name));
        }
        if !given.insert(name.clone()) {
            return Err(Problem::invalid_field(&name, "is given twice"));
        }
    }
    Ok(())
}

/// The name is told where it looks like one: it might as well be a secret in the wrong place.
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
