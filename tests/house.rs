//! Who may know whom: the directions in which the rooms of the code depend on each other.
//!
//! `main → cli → service → features → {dapi, vault} → base`. Only the service knows every feature;
//! `model` and `store` never see actix; `routes` never see sqlx.
//!
//! That the development tools know nothing of the service, and the sandbox above all nothing of the client
//! that it stands in for, needs no test: their package does not depend on it, so they cannot.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every room and the rooms that it may know.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("base", vec![]),
        ("vault", vec!["base", "database"]),
        ("config", vec!["base", "vault"]),
        ("database", vec!["base", "config"]),
        ("dapi", vec!["base", "config"]),
        ("http", vec!["base", "database"]),
        ("audit", vec!["database", "base", "http"]),
        ("users", vec!["database", "base", "vault"]),
        ("apps", vec!["database", "base", "vault", "config", "dapi", "audit"]),
        ("outbound", vec!["base"]),
        ("upstreams", vec!["database", "base", "vault", "outbound", "http", "audit"]),
        ("oauth", vec!["database", "base", "vault", "config", "http", "audit"]),
        (
            "relay",
            vec![
                "database",
                "base",
                "vault",
                "dapi",
                "http",
                "audit",
                "apps",
                "users",
                "oauth",
                "connections",
            ],
        ),
        ("sessions", vec!["database", "base", "vault", "http", "audit", "users"]),
        (
            "connections",
            vec!["database", "base", "vault", "config", "dapi", "http", "audit", "apps", "users"],
        ),
        ("erasure", vec!["database", "base", "http", "connections", "oauth", "users"]),
        ("telemetry", vec!["database", "config"]),
        ("background", vec!["database", "audit", "config", "connections", "oauth", "vault"]),
        (
            "service",
            vec![
                "base",
                "database",
                "vault",
                "config",
                "dapi",
                "http",
                "audit",
                "users",
                "apps",
                "oauth",
                "sessions",
                "connections",
                "erasure",
                "outbound",
                "upstreams",
                "relay",
                "telemetry",
                "background",
            ],
        ),
    ])
}

/// The same for the development tools, `crates/strongroom-dev`.
fn allowed_in_dev() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("sandbox", vec![]),
        ("postgres", vec![]),
        ("folder", vec![]),
        ("banner", vec![]),
        ("demo", vec!["folder"]),
    ])
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The `src` of a package, by its folder; the root package's is "".
fn src(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("src")
}

/// The sources of every package.
fn all_sources() -> Vec<PathBuf> {
    ["", "crates/strongroom-common", "crates/strongroom-dev"]
        .into_iter()
        .flat_map(|package| sources(&src(package)))
        .collect()
}

/// The room of a source file: the first part of its path in `src`.
fn room(file: &Path, src: &Path) -> String {
    let relative = file.strip_prefix(src).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a source file names, in imports and in paths.
fn known(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<_> = code.collect();
    let name = |rest: &str| {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>()
    };
    let joined = code.join("\n").replace("use crate::{", "crate::");
    joined.split("crate::").skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

/// Holds every file of `src` against the rows; rooms that are `free` know everything.
fn check_directions(src: &Path, allowed: &BTreeMap<&str, Vec<&str>>, free: &[&str]) {
    for file in sources(src) {
        let room = room(&file, src);
        let Some(may_know) = allowed.get(room.as_str()) else {
            assert!(free.contains(&room.as_str()), "{room} has no row");
            continue;
        };
        for other in known(&std::fs::read_to_string(&file).unwrap()) {
            let is_room = allowed.contains_key(other.as_str()) || free.contains(&other.as_str());
            assert!(
                other == room || !is_room || may_know.contains(&other.as_str()),
                "{} knows {other}, which {room} may not",
                file.display()
            );
        }
    }
}

#[test]
fn every_room_knows_only_whom_it_may() {
    check_directions(&src(""), &allowed(), &["lib", "main", "cli"]);
    check_directions(&src("crates/strongroom-dev"), &allowed_in_dev(), &["lib"]);
}

#[test]
fn rules_and_statements_never_see_http_and_routes_never_see_sql() {
    let service = src("").join("service");
    for file in all_sources() {
        if file.starts_with(&service) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.to_str().unwrap();
        let is = |part: &str| {
            path.contains(&format!("/{part}/")) || path.ends_with(&format!("/{part}.rs"))
        };
        if is("model") || is("store") {
            assert!(!text.contains("actix"), "{path} sees actix");
        }
        if is("routes") {
            assert!(!text.contains("sqlx::query"), "{path} writes SQL");
        }
    }
}

#[test]
fn functions_and_files_stay_of_a_size_that_can_be_read_at_once() {
    for file in all_sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines = code.lines().count();
        assert!(lines <= 450, "{} has {lines} lines", file.display());
    }
}
