//! What holds for every operation of the document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use strongroom::common::scope::Scope;
use strongroom::http::problem::ProblemCode;

struct Operation {
    name: String,
    path: String,
    value: Value,
}

impl Operation {
    fn responses(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.value["responses"].as_object().unwrap().iter()
    }

    fn is_of(&self, tag: &str) -> bool {
        self.value["tags"][0] == tag
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, value)| Operation {
            name: format!("{method} {path}"),
            path: path.clone(),
            value: value.clone(),
        })
    });
    each.collect()
}

/// Every value of the document below a key, with the key.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                visit(key, member);
                walk(member, visit);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

fn references(document: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    walk(document, &mut |key, value| {
        if key == "$ref" {
            found.insert(value.as_str().unwrap());
        }
    });
    found
}

#[test]
fn every_operation_has_an_id_of_its_own_that_reads_as_a_method() {
    let document = strongroom::service::document();
    let mut seen = BTreeMap::new();
    for operation in operations(&document) {
        let id = operation.value["operationId"].as_str().unwrap().to_owned();
        let is_word = |c: char| c.is_ascii_alphanumeric();
        assert!(
            id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(is_word),
            "{id}"
        );
        assert!(id.contains(|c: char| c.is_ascii_uppercase()), "{id} is a verb without its noun");
        assert_eq!(seen.insert(id.clone(), operation.name), None, "{id}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_referred_to() {
    let document = strongroom::service::document();
    let references = references(&document);
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let location = format!("#/components/schemas/{name}");
        assert!(references.contains(location.as_str()), "{name} is not used");
    }
}

/// A name that two types share would stand for one of them alone.
#[test]
fn no_two_types_have_one_name() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for name in derived(&text) {
                let here = path.display().to_string();
                let before = names.insert(name.clone(), here.clone());
                assert!(before.is_none(), "{name} in {here} and in {}", before.unwrap());
            }
        }
    }
    assert!(names.contains_key("Connection") && names.contains_key("ConnectionFailure"));
}

/// The names of the types that derive `ToSchema`: their `as`, or the type's own.
fn derived(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for item in text
        .split("#[derive(")
        .skip(1)
        .filter(|item| item.split(")]").next().unwrap().contains("ToSchema"))
    {
        let word = |after: &str| {
            let rest = item.split(after).nth(1)?;
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            Some((item.find(after)?, rest[..end].to_owned()))
        };
        let kind = [word(" struct "), word(" enum "), word("\nstruct "), word("\nenum ")];
        let own = kind.into_iter().flatten().min().unwrap();
        let renamed = word("(as = ").filter(|(at, _)| *at < own.0);
        found.push(renamed.unwrap_or(own).1);
    }
    found
}

#[test]
fn every_refusal_has_the_schema_of_its_side_with_its_codes() {
    let document = strongroom::service::document();
    for operation in operations(&document) {
        for (status, response) in
            operation.responses().filter(|(status, _)| *status >= &"400".to_owned())
        {
            let place = format!("{} {status}", operation.name);
            if status == "default" || (operation.path == "/metrics" && status == "500") {
                continue;
            }
            let content = response["content"].as_object().unwrap();
            let (media_type, schema) = match () {
                () if operation.is_of("OAuth") => ("application/json", "OAuthError"),
                () if operation.is_of("Dapi's wire") => ("application/json", "DapiAnswer"),
                () if operation.is_of("Plaid's wire") => ("application/json", "PlaidAnswer"),
                () => ("application/problem+json", "Problem"),
            };
            assert_eq!(content.keys().collect::<Vec<_>>(), [media_type], "{place}");
            let media = &content[media_type];
            assert_eq!(
                media["schema"]["$ref"],
                format!("#/components/schemas/{schema}"),
                "{place}"
            );
            if schema == "Problem" {
                codes_are_of(status, &media["schema"]["properties"]["code"]["enum"], &place);
            }
        }
    }
}

fn codes_are_of(status: &str, codes: &Value, place: &str) {
    let codes = codes.as_array().unwrap();
    assert!(!codes.is_empty(), "{place}");
    for code in codes {
        let known = ProblemCode::ALL.iter().find(|known| code == known.as_str());
        assert_eq!(known.unwrap().status().as_str(), status, "{place} {code}");
    }
}

#[test]
fn every_body_has_an_example() {
    let document = strongroom::service::document();
    for operation in operations(&document) {
        let responses = operation.responses().map(|(status, response)| (status.as_str(), response));
        let request = [("request", &operation.value["requestBody"])];
        for (what, body) in responses.chain(request) {
            for (media_type, media) in body["content"].as_object().into_iter().flatten() {
                let has = media.get("example").is_some() || media.get("examples").is_some();
                assert!(has, "{} {what} {media_type}", operation.name);
            }
        }
    }
}

#[test]
fn every_operation_says_who_may_call_it() {
    let document = strongroom::service::document();
    let flow = &document["components"]["securitySchemes"]["bearer"]["flows"]["clientCredentials"];
    let scopes: BTreeSet<_> = flow["scopes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(scopes, Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect());
    for operation in operations(&document) {
        let security = operation.value["security"].as_array().unwrap();
        assert!(!security.is_empty(), "{}", operation.name);
        for scheme in security.iter().flat_map(|one| one.as_object().unwrap()) {
            assert!(
                document["components"]["securitySchemes"].get(scheme.0).is_some(),
                "{scheme:?}"
            );
            for scope in scheme.1.as_array().unwrap() {
                assert!(scopes.contains(scope.as_str().unwrap()), "{} {scope}", operation.name);
            }
        }
    }
}

#[test]
fn every_tag_is_described_and_every_text_has_a_limit_or_a_form_where_it_comes_in() {
    let document = strongroom::service::document();
    let tags: BTreeSet<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].clone().to_string())
        .collect();
    for operation in operations(&document) {
        assert!(tags.contains(&operation.value["tags"][0].to_string()), "{}", operation.name);
        let parameters = operation.value["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            let schema = resolved(&document, &parameter["schema"]);
            let typed = ["pattern", "format", "enum", "maximum"];
            let is_typed =
                typed.iter().any(|key| schema.get(key).is_some()) || schema["type"] == "boolean";
            assert!(is_typed, "{} {}", operation.name, parameter["name"]);
        }
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(location) => document.pointer(location.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}
