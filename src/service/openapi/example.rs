//! Examples of bodies, composed from the examples of their fields.

use serde_json::{Map, Value, json};

const TIME: &str = "2026-11-21T15:20:00Z";
const UUID: &str = "0199f3a2-7c1e-7d3b-9a54-3f2b8c0d6e71";

/// Whose body it is. A request leaves out what has no example; a response has `null`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// Returns an example of the schema; `None` if a part that has to be there has none.
pub(super) fn of(schema: &Value, schemas: &Value, side: Side) -> Option<Value> {
    if let Some(given) = given(schema) {
        return Some(given.clone());
    }
    if let Some(location) = schema.get("$ref").and_then(Value::as_str) {
        return of(schemas.get(location.rsplit('/').next()?)?, schemas, side);
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let parts = parts.iter().map(|part| of(part, schemas, side)).collect::<Option<Vec<_>>>()?;
        let members = parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten();
        return Some(Value::Object(members.collect()));
    }
    let choices = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    if let Some(choices) = choices {
        let null = choices.iter().any(|choice| choice["type"] == "null");
        return if null { Some(Value::Null) } else { of(choices.first()?, schemas, side) };
    }
    of_type(schema, schemas, side)
}

/// Returns the example that the schema itself has, or its only or first value.
fn given(schema: &Value) -> Option<&Value> {
    let first = |name: &str| schema.get(name).and_then(Value::as_array).and_then(|all| all.first());
    let example = schema.get("example").or_else(|| first("examples"));
    example
        .or_else(|| schema.get("default"))
        .or_else(|| schema.get("const"))
        .or_else(|| first("enum"))
}

fn of_type(schema: &Value, schemas: &Value, side: Side) -> Option<Value> {
    let types = &schema["type"];
    let is = |name: &str| {
        types == name || types.as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    let known = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => Some(json!(TIME)),
        Some("uuid") => Some(json!(UUID)),
        _ if is("null") => Some(Value::Null),
        _ => None,
    };
    match known {
        Some(known) => Some(known),
        None if is("object") => object(schema, schemas, side),
        None if is("array") => Some(json!([of(&schema["items"], schemas, side)?])),
        None if is("boolean") => Some(json!(false)),
        None if is("integer") => Some(schema.get("minimum").cloned().unwrap_or(json!(0))),
        None => None,
    }
}

fn object(schema: &Value, schemas: &Value, side: Side) -> Option<Value> {
    let mut members = Map::new();
    for (name, property) in
        schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        let example = of(property, schemas, side)?;
        if side == Side::Response || !example.is_null() {
            members.insert(name.clone(), example);
        }
    }
    Some(Value::Object(members))
}
