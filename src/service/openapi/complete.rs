//! What holds for every operation, added to the document after the annotations.

#![expect(
    clippy::indexing_slicing,
    reason = "the document is an object of objects, as utoipa makes it, and every test reads it"
)]

use serde_json::{Map, Value, json};

use super::{example, links};

/// The header that every response of the API has.
const REQUEST_ID: &str = "X-Request-ID";

/// Adds an example to every body, the request's id to every response, and to every problem which
/// codes come with its status.
pub(super) fn complete(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    document["components"]["headers"] = json!({ REQUEST_ID: {
        "description": "The request's id, under which the log has details",
        "schema": { "type": "string", "format": "uuid" },
    }});
    links::add(&mut document["paths"]);
    for (path, item) in members(&mut document["paths"]) {
        // Another listener than the API's, without its layers.
        let is_apart = path == "/metrics";
        for (_, operation) in members(item) {
            if is_apart {
                operation["servers"] = json!([{
                    "url": "http://127.0.0.1:9090",
                    "description": "`STRONGROOM_METRICS_LISTEN`",
                }]);
            }
            if let Some(content) = operation.pointer_mut("/requestBody/content") {
                members(content).for_each(|(_, media)| take_as_it_is(&mut media["schema"]));
                illustrate(content, &schemas, example::Side::Request);
            }
            for (_, response) in members(&mut operation["responses"]) {
                if let Some(content) = response.get_mut("content") {
                    illustrate(content, &schemas, example::Side::Response);
                }
                if !is_apart {
                    response["headers"][REQUEST_ID] =
                        json!({ "$ref": format!("#/components/headers/{REQUEST_ID}") });
                }
            }
        }
    }
}

/// Reduces an optional body to its schema: it may be left out, which is not `null`.
fn take_as_it_is(schema: &mut Value) {
    let parts = schema.get("oneOf").and_then(Value::as_array);
    let is_null = |part: &&Value| part["type"] == "null";
    if let Some(parts) =
        parts.filter(|parts| parts.len() == 2 && parts.iter().any(|part| is_null(&part)))
        && let Some(rest) = parts.iter().find(|part| !is_null(part))
    {
        *schema = rest.clone();
    }
}

/// The members of an object; none of anything else.
fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flat_map(Map::iter_mut)
}

/// Gives each media type an example, or if its examples are problems by code, the codes.
fn illustrate(content: &mut Value, schemas: &Value, side: example::Side) {
    for (_, media) in members(content) {
        if let Some(examples) = media.get("examples").and_then(Value::as_object) {
            let codes: Vec<_> = examples.keys().cloned().collect();
            // Keywords beside `$ref` hold as well (JSON Schema 2020-12 §8.2.3.1).
            media["schema"]["properties"] = json!({ "code": { "enum": codes } });
        } else if media.get("example").is_none()
            && let Some(example) = example::of(&media["schema"], schemas, side)
        {
            media["example"] = example;
        }
    }
}
