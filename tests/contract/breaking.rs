//! Which changes of the document break a client that was written for an older one.
//!
//! The rules are those of oasdiff that concern this document. A change is told as one line, which
//! `tests/contract/accepted.json` may list with a reason until the next release.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Whose data a schema describes: a request may get looser, a response tighter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// Returns the breaking changes from one document to a later one, sorted.
pub fn breaks(old: &Value, new: &Value) -> BTreeSet<String> {
    let mut found = Found { old, new, breaks: BTreeSet::new(), seen: BTreeSet::new() };
    for (path, item) in members(&old["paths"]) {
        for (method, operation) in members(item) {
            let place = format!("{method} {path}");
            match new["paths"].get(path).and_then(|item| item.get(method)) {
                Some(later) => found.operation(&place, operation, later),
                None => found.add(&place, "is removed"),
            }
        }
    }
    found.breaks
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

struct Found<'a> {
    old: &'a Value,
    new: &'a Value,
    breaks: BTreeSet<String>,
    /// Pairs of references that are being compared or were.
    seen: BTreeSet<(String, String, bool)>,
}

impl<'a> Found<'a> {
    fn add(&mut self, place: &str, what: impl std::fmt::Display) {
        self.breaks.insert(format!("{place} {what}"));
    }

    fn operation(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            self.add(place, format_args!("was called {}", old["operationId"]));
        }
        self.security(place, old, new);
        self.parameters(place, old, new);
        self.request(place, old, new);
        for (status, response) in members(&old["responses"]) {
            let place = format!("{place} {status}");
            match new["responses"].get(status) {
                Some(later) => self.response(&place, response, later),
                // A refusal that cannot happen any more breaks nobody.
                None if status.starts_with('2') || status == "default" => {
                    self.add(&place, "is removed");
                }
                None => {}
            }
        }
    }

    fn security(&mut self, place: &str, old: &Value, new: &Value) {
        let ways = |operation: &Value| -> BTreeSet<String> {
            operation["security"].as_array().into_iter().flatten().map(Value::to_string).collect()
        };
        for way in ways(old).difference(&ways(new)) {
            self.add(place, format_args!("takes no {way} any more"));
        }
    }

    fn parameters(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let key = |parameter: &Value| (parameter["in"].clone(), parameter["name"].clone());
        let (before, after) = (list(&old["parameters"]), list(&new["parameters"]));
        for parameter in before {
            let place = format!("{place} {}", text(&parameter["name"]));
            match after.iter().find(|later| key(later) == key(parameter)) {
                None => self.add(&place, "is removed"),
                Some(later) => {
                    if later["required"] == true && parameter["required"] != true {
                        self.add(&place, "is required");
                    }
                    self.schema(&place, &parameter["schema"], &later["schema"], Side::Request);
                }
            }
        }
        for later in after.iter().filter(|later| later["required"] == true) {
            if !before.iter().any(|parameter| key(parameter) == key(later)) {
                self.add(&format!("{place} {}", text(&later["name"])), "is new and required");
            }
        }
    }

    fn request(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let (old, new) = (&old["requestBody"], &new["requestBody"]);
        if new["required"] == true && old["required"] != true {
            self.add(place, "needs a body");
        }
        self.content(&format!("{place} body"), &old["content"], &new["content"], Side::Request);
    }

    fn response(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        for (header, _) in members(&old["headers"]) {
            if new["headers"].get(header).is_none() {
                self.add(place, format_args!("has no header {header}"));
            }
        }
        self.content(place, &old["content"], &new["content"], Side::Response);
    }

    fn content(&mut self, place: &str, old: &'a Value, new: &'a Value, side: Side) {
        for (media_type, content) in members(old) {
            match new.get(media_type) {
                None => self.add(place, format_args!("is no {media_type} any more")),
                Some(later) => self.schema(place, &content["schema"], &later["schema"], side),
            }
        }
    }

    fn schema(&mut self, place: &str, old: &'a Value, new: &'a Value, side: Side) {
        if side == Side::Response
            && let Some(same) = self.option(old, new)
        {
            self.add(place, "may be something else as well");
            return self.schema(place, old, same, side);
        }
        let names = [old, new].map(|schema| text(&schema["$ref"]).to_owned());
        let mut place = place.to_owned();
        if let [before, after] = &names
            && !before.is_empty()
            && before == after
        {
            // A component is compared once for each side and told by its own name.
            if !self.seen.insert((before.clone(), after.clone(), side == Side::Request)) {
                return;
            }
            let side = if side == Side::Request { "request" } else { "response" };
            place = format!("{} ({side})", before.rsplit('/').next().unwrap());
        }
        let old = resolve(self.old, old);
        let new = resolve(self.new, new);
        self.types(&place, old, new, side);
        self.values(&place, old, new, side);
        self.limits(&place, old, new, side);
        self.properties(&place, old, new, side);
        if old.get("items").is_some() {
            self.schema(&format!("{place}[]"), &old["items"], &new["items"], side);
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            self.parts(&place, list(&old[key]), list(&new[key]), side);
        }
    }

    /// Returns, of the alternatives that a schema now has and had not, the one that it was.
    fn option(&self, old: &Value, new: &'a Value) -> Option<&'a Value> {
        if resolve(self.old, old).get("oneOf").is_some() {
            return None;
        }
        let options = list(&resolve(self.new, new)["oneOf"]);
        options.iter().find(|option| old.get("$ref").is_some() && option["$ref"] == old["$ref"])
    }

    /// A request may take more types than before, a response may give fewer.
    fn types(&mut self, place: &str, old: &Value, new: &Value, side: Side) {
        let (before, after) = (types(old), types(new));
        let (narrow, wide) =
            if side == Side::Request { (&after, &before) } else { (&before, &after) };
        let unknown = |all: &BTreeSet<String>| all.is_empty();
        let fits = unknown(narrow) || (!unknown(wide) && wide.is_subset(narrow));
        if !fits {
            self.add(place, format_args!("was {} and is {}", join(&before), join(&after)));
        }
        if old["format"] != new["format"] && side == Side::Request && !new["format"].is_null() {
            self.add(place, format_args!("has the format {}", new["format"]));
        }
    }

    fn values(&mut self, place: &str, old: &Value, new: &Value, side: Side) {
        let values = |schema: &Value| -> BTreeSet<String> {
            list(&schema["enum"]).iter().map(Value::to_string).collect()
        };
        let (before, after) = (values(old), values(new));
        if before.is_empty() && after.is_empty() {
            return;
        }
        for gone in
            before.difference(&after).filter(|_| !after.is_empty() || side == Side::Response)
        {
            self.add(place, format_args!("has no value {gone}"));
        }
        let closed = side == Side::Request && before.is_empty();
        if closed {
            self.add(place, "takes certain values alone");
        }
        // A client has to expect unknown codes of problems; other sets are closed.
        let open = |value: &String| {
            place.contains("ProblemCode") || place.contains("code") && value.contains('_')
        };
        if side == Side::Response && !before.is_empty() {
            for added in after.difference(&before).filter(|value| !open(value)) {
                self.add(place, format_args!("may be {added}"));
            }
        }
    }

    fn limits(&mut self, place: &str, old: &Value, new: &Value, side: Side) {
        if side == Side::Response {
            return;
        }
        for key in ["maxLength", "maximum", "maxItems", "maxProperties"] {
            let (before, after) = (old[key].as_f64(), new[key].as_f64());
            if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
                self.add(place, format_args!("has a lower {key}"));
            }
        }
        for key in ["minLength", "minimum", "minItems", "minProperties"] {
            let (before, after) = (old[key].as_f64().unwrap_or(0.0), new[key].as_f64());
            if after.is_some_and(|after| after > before) {
                self.add(place, format_args!("has a higher {key}"));
            }
        }
        if new["pattern"] != old["pattern"] && !new["pattern"].is_null() {
            self.add(place, "has another pattern");
        }
        if new["additionalProperties"] == false && old["additionalProperties"] != false {
            self.add(place, "takes no further properties");
        }
    }

    fn properties(&mut self, place: &str, old: &'a Value, new: &'a Value, side: Side) {
        let required = |schema: &Value| -> BTreeSet<String> {
            list(&schema["required"]).iter().map(|name| text(name).to_owned()).collect()
        };
        let (before, after) = (required(old), required(new));
        for (name, property) in members(&old["properties"]) {
            let inside = format!("{place}.{name}");
            match new["properties"].get(name) {
                None => self.add(&inside, "is removed"),
                Some(later) => self.schema(&inside, property, later, side),
            }
        }
        if side == Side::Request {
            for name in after.difference(&before) {
                self.add(&format!("{place}.{name}"), "is required");
            }
        } else {
            for name in
                before.difference(&after).filter(|name| new["properties"].get(name).is_some())
            {
                self.add(&format!("{place}.{name}"), "may be left out");
            }
        }
    }

    /// Alternatives are compared in their order; one that is gone from a request or new in a response breaks.
    fn parts(&mut self, place: &str, old: &'a [Value], new: &'a [Value], side: Side) {
        for (before, after) in old.iter().zip(new) {
            self.schema(place, before, after, side);
        }
        let breaks =
            if side == Side::Request { new.len() < old.len() } else { new.len() > old.len() };
        if breaks && !old.is_empty() {
            self.add(place, "has other alternatives");
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn join(types: &BTreeSet<String>) -> String {
    types.iter().cloned().collect::<Vec<_>>().join(" or ")
}

fn types(schema: &Value) -> BTreeSet<String> {
    match &schema["type"] {
        Value::String(one) => BTreeSet::from([one.clone()]),
        Value::Array(all) => all.iter().map(|one| text(one).to_owned()).collect(),
        _ => BTreeSet::new(),
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(location) => document.pointer(location.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// A document with one operation of each kind that the tests change.
fn example() -> Value {
    json!({
        "paths": { "/things/{id}": { "post": {
            "operationId": "changeThing",
            "security": [{ "session": [] }, { "bearer": ["write"] }],
            "parameters": [
                { "in": "path", "name": "id", "required": true, "schema": { "type": "string" } },
                { "in": "query", "name": "limit", "required": false,
                  "schema": { "type": "integer", "minimum": 1, "maximum": 100 } },
            ],
            "requestBody": { "required": false, "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Change" } } } },
            "responses": {
                "200": { "headers": { "Location": {} }, "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/Thing" } } } },
                "409": { "content": { "application/problem+json": { "schema": {
                    "properties": { "code": { "enum": ["a_b"] } } } } } },
            },
        }}},
        "components": { "schemas": {
            "Change": { "type": "object", "required": ["name"], "properties": {
                "name": { "type": "string", "maxLength": 10 },
                "kind": { "type": "string", "enum": ["x", "y"] },
                "note": { "type": ["string", "null"] },
            }},
            "Thing": { "type": "object", "required": ["name", "kind"], "properties": {
                "name": { "type": "string" },
                "kind": { "type": "string", "enum": ["x", "y"] },
                "tags": { "type": "array", "items": { "type": "string" } },
            }},
        }},
    })
}

const OPERATION: &str = "/paths/~1things~1{id}/post";

/// What breaks if the value at a pointer becomes another.
fn after(pointer: &str, value: Value) -> Vec<String> {
    let mut new = example();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = new.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        parent => parent[key.replace("~1", "/")] = value,
    }
    breaks(&example(), &new).into_iter().collect()
}

/// What breaks if the value at a pointer is removed.
fn without(pointer: &str) -> Vec<String> {
    let mut new = example();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match new.pointer_mut(parent).unwrap() {
        Value::Array(items) => drop(items.remove(key.parse().unwrap())),
        parent => drop(parent.as_object_mut().unwrap().remove(&key.replace("~1", "/"))),
    }
    breaks(&example(), &new).into_iter().collect()
}

#[test]
fn the_same_document_breaks_nothing() {
    assert!(breaks(&example(), &example()).is_empty());
}

#[test]
fn what_is_removed_breaks() {
    assert_eq!(without("/paths/~1things~1{id}"), ["post /things/{id} is removed"]);
    assert_eq!(without(OPERATION), ["post /things/{id} is removed"]);
    assert_eq!(
        without(&format!("{OPERATION}/parameters/1")),
        ["post /things/{id} limit is removed"]
    );
    assert_eq!(
        without(&format!("{OPERATION}/responses/200")),
        ["post /things/{id} 200 is removed"]
    );
    assert_eq!(
        without(&format!("{OPERATION}/responses/200/headers/Location")),
        ["post /things/{id} 200 has no header Location"]
    );
    assert_eq!(
        without(&format!("{OPERATION}/requestBody/content/application~1json")),
        ["post /things/{id} body is no application/json any more"]
    );
    assert_eq!(
        without(&format!("{OPERATION}/security/0")),
        ["post /things/{id} takes no {\"session\":[]} any more"]
    );
    assert_eq!(
        without("/components/schemas/Thing/properties/name"),
        ["Thing (response).name is removed"]
    );
    assert_eq!(
        without("/components/schemas/Change/properties/kind/enum/0"),
        ["Change (request).kind has no value \"x\""]
    );
    assert_eq!(
        without("/components/schemas/Thing/properties/kind/enum/0"),
        ["Thing (response).kind has no value \"x\""]
    );
}

#[test]
fn what_is_newly_asked_for_breaks() {
    let parameter = json!({ "in": "query", "name": "who", "required": true, "schema": {} });
    assert_eq!(
        after(&format!("{OPERATION}/parameters/-"), parameter),
        ["post /things/{id} who is new and required"]
    );
    assert_eq!(
        after(&format!("{OPERATION}/requestBody/required"), json!(true)),
        ["post /things/{id} needs a body"]
    );
    assert_eq!(
        after("/components/schemas/Change/required", json!(["name", "kind"])),
        ["Change (request).kind is required"]
    );
}

#[test]
fn what_gets_narrower_in_a_request_or_wider_in_a_response_breaks() {
    let change = "/components/schemas/Change/properties";
    let thing = "/components/schemas/Thing/properties";
    assert_eq!(
        after(&format!("{change}/note/type"), json!("string")),
        ["Change (request).note was null or string and is string"]
    );
    assert_eq!(
        after(&format!("{change}/name/maxLength"), json!(9)),
        ["Change (request).name has a lower maxLength"]
    );
    assert_eq!(
        after(&format!("{change}/name/minLength"), json!(1)),
        ["Change (request).name has a higher minLength"]
    );
    assert_eq!(
        after(&format!("{change}/name/pattern"), json!("^a")),
        ["Change (request).name has another pattern"]
    );
    assert_eq!(
        after(&format!("{change}/name/enum"), json!(["a"])),
        ["Change (request).name takes certain values alone"]
    );
    assert_eq!(
        after("/components/schemas/Change/additionalProperties", json!(false)),
        ["Change (request) takes no further properties"]
    );
    assert_eq!(
        after(&format!("{thing}/name/type"), json!(["string", "null"])),
        ["Thing (response).name was string and is null or string"]
    );
    assert_eq!(
        after(&format!("{thing}/kind/enum/-"), json!("z")),
        ["Thing (response).kind may be \"z\""]
    );
    assert_eq!(
        after(&format!("{thing}/tags/items/type"), json!("integer")),
        ["Thing (response).tags[] was string and is integer"]
    );
    assert_eq!(
        after("/components/schemas/Thing/required", json!(["name"])),
        ["Thing (response).kind may be left out"]
    );
}

#[test]
fn what_adds_breaks_nothing() {
    let none: [String; 0] = [];
    let optional = json!({ "in": "query", "name": "who", "required": false, "schema": {} });
    assert_eq!(after(&format!("{OPERATION}/parameters/-"), optional), none);
    assert_eq!(after("/paths/~1others", json!({ "get": {} })), none);
    assert_eq!(after("/components/schemas/Change/properties/new", json!({})), none);
    assert_eq!(after("/components/schemas/Thing/properties/new", json!({})), none);
    assert_eq!(after("/components/schemas/Change/properties/kind/enum/-", json!("z")), none);
    assert_eq!(after("/components/schemas/Change/properties/name/maxLength", json!(11)), none);
    assert_eq!(after("/components/schemas/Thing/properties/name/maxLength", json!(5)), none);
    assert_eq!(without(&format!("{OPERATION}/responses/409")), none);
    let code = format!(
        "{OPERATION}/responses/409/content/application~1problem+json/schema/properties/code/enum/-"
    );
    assert_eq!(after(&code, json!("c_d")), none);
}
