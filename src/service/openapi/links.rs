//! Which operation takes what another one has made: the links of its response.

#![expect(
    clippy::indexing_slicing,
    reason = "the document is an object of objects, as utoipa makes it, and every test reads it"
)]

use serde_json::{Map, Value, json};

/// What was made, by operation and status, and the parameter and the pointer of its id.
type Made = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CONNECTION: &[(&str, &str)] = &[("id", "/id")];
const CLIENT: &[(&str, &str)] = &[("clientID", "/clientID")];
const SECRET: &[(&str, &str)] = &[("clientID", "/clientID"), ("secretID", "/id")];
const UPSTREAM: &[(&str, &str)] = &[("name", "/name")];
const ORDER: &[(&str, &str)] = &[("id", "/id")];

const OF_A_CONNECTION: &[&str] = &[
    "getConnection",
    "getConnectionHistory",
    "revealToken",
    "releaseToken",
    "callDapi",
    "callPlaid",
    "clearAttention",
    "delinkConnection",
    "invalidateConnection",
];

const LINKS: [(Made, &[&str]); 9] = [
    (("createConnection", "201", CONNECTION), OF_A_CONNECTION),
    (("createConnection", "202", CONNECTION), OF_A_CONNECTION),
    (("importConnection", "201", CONNECTION), OF_A_CONNECTION),
    (
        ("createClient", "201", CLIENT),
        &["getClient", "updateClient", "deleteClient", "createClientSecret"],
    ),
    (("createClientSecret", "201", SECRET), &["deleteClientSecret"]),
    (
        ("createUpstream", "201", UPSTREAM),
        &["getUpstream", "updateUpstream", "deleteUpstream", "getUpstreamToken"],
    ),
    (
        ("createRevocation", "202", ORDER),
        &["getRevocation", "pauseRevocation", "resumeRevocation", "cancelRevocation"],
    ),
    (("eraseUser", "200", ORDER), &["getErasure"]),
    (("eraseUser", "202", ORDER), &["getErasure"]),
];

/// Adds the links to the responses of the operations.
pub(super) fn add(paths: &mut Value) {
    let items = paths.as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in items.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let of_this = |((id, ..), _): &&(Made, _)| operation["operationId"] == *id;
        for ((_, status, parameters), targets) in LINKS.iter().filter(of_this).collect::<Vec<_>>() {
            let parameters: Map<_, _> = parameters
                .iter()
                .map(|(name, at)| ((*name).to_owned(), json!(format!("$response.body#{at}"))))
                .collect();
            let link = |target: &&str| {
                let link = json!({ "operationId": target, "parameters": parameters });
                ((*target).to_owned(), link)
            };
            let links: Map<_, _> = targets.iter().map(link).collect();
            operation["responses"][status]["links"] = Value::Object(links);
        }
    }
}
