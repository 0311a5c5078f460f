//! The architecture: which module may import which, where HTTP and SQL are allowed, and how long a file may be.
//!
//! `main → cli → service → features → {dapi, vault} → base`. Only the service imports every feature; `model`
//! and `store` never use actix; `routes` never use sqlx.
//!
//! That the development tools import nothing of the service, and above all that the sandbox shares no type with
//! the client that it is tested with, needs no test: their package does not depend on the service.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every module of `src` and the modules that it may import.
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

/// The modules of `crates/strongroom-dev` and what they may import.
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

/// Returns the `src` of a package by its folder; the root package's is "".
fn src(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("src")
}

/// Returns the sources of every package.
fn all_sources() -> Vec<PathBuf> {
    ["", "crates/strongroom-common", "crates/strongroom-dev"]
        .into_iter()
        .flat_map(|package| sources(&src(package)))
        .collect()
}

/// Returns the module of a source file: the first part of its path in `src`.
fn module(file: &Path, src: &Path) -> String {
    let relative = file.strip_prefix(src).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the modules that a source file names after `crate::`, in imports and in paths.
fn imported(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<_> = code.collect();
    let name = |rest: &str| {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>()
    };
    let joined = code.join("\n").replace("use crate::{", "crate::");
    joined.split("crate::").skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

/// Checks every file of `src` against the rows; modules in `free` may import everything.
fn check_directions(src: &Path, allowed: &BTreeMap<&str, Vec<&str>>, free: &[&str]) {
    for file in sources(src) {
        let module = module(&file, src);
        let Some(may_import) = allowed.get(module.as_str()) else {
            assert!(free.contains(&module.as_str()), "{module} has no row");
            continue;
        };
        for other in imported(&std::fs::read_to_string(&file).unwrap()) {
            let is_module = allowed.contains_key(other.as_str()) || free.contains(&other.as_str());
            assert!(
                other == module || !is_module || may_import.contains(&other.as_str()),
                "{} imports {other}, which {module} may not",
                file.display()
            );
        }
    }
}

#[test]
fn every_module_imports_only_what_it_may() {
    check_directions(&src(""), &allowed(), &["lib", "main", "cli"]);
    check_directions(&src("crates/strongroom-dev"), &allowed_in_dev(), &["lib"]);
}

#[test]
fn models_and_stores_never_use_http_and_routes_never_use_sql() {
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
            assert!(!text.contains("actix"), "{path} uses actix");
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
