//! The `OpenAPI` document as a contract: it is sound in itself, the repository has a copy of it, and it breaks nothing
//! that the last release promised.
//!
//! `docs/openapi.json` is the document as the service serves it. After a change:
//!
//! ```sh
//! cargo run -- openapi > docs/openapi.json
//! ```
//!
//! `tests/contract/released.json` is the document of the last release, and moves with a release alone: CONTRIBUTING.md.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]
#![expect(
    clippy::indexing_slicing,
    reason = "a path of the document that is not there has to fail"
)]

mod breaking;
mod document;

use std::path::PathBuf;

use serde_json::Value;

fn read(path: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_repository_has_the_document_as_it_is_served() {
    assert!(
        read("docs/openapi.json") == strongroom::service::document(),
        "docs/openapi.json is not the service's document; cargo run -- openapi > docs/openapi.json"
    );
}

#[test]
fn nothing_that_the_last_release_promised_is_broken() {
    let accepted = read("tests/contract/accepted.json");
    let accepted: Vec<_> = accepted.as_object().unwrap().keys().collect();
    let breaks =
        breaking::breaks(&read("tests/contract/released.json"), &strongroom::service::document());
    let new: Vec<_> = breaks.iter().filter(|one| !accepted.contains(one)).collect();
    assert!(new.is_empty(), "breaking changes: {new:#?}");
    let gone: Vec<_> = accepted.iter().filter(|one| !breaks.contains(one.as_str())).collect();
    assert!(gone.is_empty(), "accepted and not broken: {gone:#?}");
}
