//! The architecture: which module may import which, where HTTP and SQL are allowed, and how long a file may be.
//!
//! `main → cli → service → features → {providers, vault} → common`. Only the service imports every feature; `model`
//! and `store` never use actix; `routes` never use sqlx.
//!
//! That the development tools import nothing of the service, and above all that the sandbox shares no type with
//! the client that it is tested with, needs no test: their package does not depend on the service.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every module of `src` and the modules that it may import.
#[expect(clippy::too_many_lines, reason = "a table")]
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("common", vec![]),
        ("vault", vec!["common", "database"]),
        ("config", vec!["common", "vault"]),
        ("database", vec!["common", "config"]),
        ("providers", vec!["common", "config"]),
        ("http", vec!["common", "database", "vault"]),
        ("audit", vec!["database", "common", "http"]),
        ("approvals", vec!["database", "common", "vault", "config", "http", "audit"]),
        ("users", vec!["database", "common", "vault"]),
        ("apps", vec!["database", "common", "vault", "config", "providers", "audit"]),
        ("outbound", vec!["common"]),
        ("upstreams", vec!["database", "common", "vault", "outbound", "http", "audit"]),
        ("oauth", vec!["database", "common", "vault", "config", "http", "outbound", "audit"]),
        (
            "relay",
            vec![
                "database",
                "common",
                "vault",
                "providers",
                "http",
                "audit",
                "apps",
                "users",
                "oauth",
                "connections",
            ],
        ),
        ("moves", vec!["database", "common", "vault", "audit", "apps", "connections"]),
        ("sessions", vec!["database", "common", "vault", "http", "audit", "users"]),
        (
            "connections",
            vec![
                "database",
                "common",
                "vault",
                "config",
                "providers",
                "http",
                "audit",
                "approvals",
                "apps",
                "users",
                // Signs the receipts of erasures.
                "oauth",
            ],
        ),
        (
            "events",
            vec![
                "database",
                "common",
                "vault",
                "http",
                "outbound",
                "audit",
                "connections",
                "oauth",
            ],
        ),
        ("operators", vec!["database", "common", "vault", "config", "audit", "approvals"]),
        (
            "console",
            vec![
                "database",
                "common",
                "vault",
                "config",
                "providers",
                "http",
                "audit",
                "approvals",
                "apps",
                "users",
                "oauth",
                "connections",
                "events",
                "upstreams",
                "sessions",
                "operators",
                "outbound",
            ],
        ),
        ("telemetry", vec!["database", "config"]),
        (
            "background",
            vec![
                "database",
                "audit",
                "config",
                "connections",
                "events",
                "oauth",
                "operators",
                "vault",
            ],
        ),
        (
            "service",
            vec![
                "common",
                "database",
                "vault",
                "config",
                "providers",
                "http",
                "audit",
                "approvals",
                "users",
                "apps",
                "oauth",
                "sessions",
                "connections",
                "events",
                "outbound",
                "upstreams",
                "relay",
                "telemetry",
                "background",
                "operators",
                "console",
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
        ("requests", vec!["demo"]),
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

/// Returns the texts of all statements, as the build checks them.
fn statements() -> Vec<String> {
    let described = std::fs::read_dir(src("").join("../.sqlx")).unwrap();
    let text = |path: PathBuf| {
        let file: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        file.get("query").unwrap().as_str().unwrap().to_owned()
    };
    described.map(|entry| text(entry.unwrap().path())).collect()
}

#[test]
fn statements_of_several_parts_begin_with_their_names_and_batches_know_them() {
    let (with_name, without): (Vec<_>, Vec<_>) =
        statements().into_iter().partition(|statement| statement.starts_with("-- name: "));
    for statement in without {
        assert!(!statement.trim_start().starts_with("WITH"), "without a name: {statement}");
    }
    let names: BTreeSet<_> =
        with_name.iter().map(|statement| statement.lines().next().unwrap()).collect();
    for file in all_sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        for batch in text.split("impl BatchQuery for ").skip(1) {
            let name = batch.split("NAME: &'static str = \"").nth(1);
            let Some(name) = name.and_then(|name| name.split('"').next()) else { continue };
            assert!(names.contains(&*format!("-- name: {name}")), "{name}: {}", file.display());
        }
    }
}

/// Returns the paths of a use tree: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn paths_of(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let body = rest.rsplit_once('}').map_or(rest, |(body, _)| body);
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in body.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths_of(part)).map(|path| format!("{}{path}", prefix.trim())).collect()
}

/// Returns the paths that a file's code names, in imports and inline; tests inside it do not count.
fn named_paths(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for piece in code.split(';') {
        let at = piece.rfind("use ").filter(|at| {
            piece[..*at].lines().last().is_none_or(|line| {
                let line = line.trim();
                line.is_empty() || line.starts_with("pub")
            })
        });
        if let Some(at) = at {
            paths.extend(paths_of(&piece[at + 4..]));
            continue;
        }
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let words = piece.split(|c: char| !is_path(c));
        paths.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
    }
    paths
}

/// Returns for each module its parts (files and folders one level below it) and which other parts each names.
fn parts_of_modules() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let root = src("");
    let mut modules: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).unwrap().with_extension("");
        let mut path: Vec<_> =
            relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        path.pop_if(|last| last == "mod");
        let [module, part, ..] = path.as_slice() else { continue };
        let named = modules.entry(module.clone()).or_default().entry(part.clone()).or_default();
        for other in named_paths(&std::fs::read_to_string(&file).unwrap()) {
            let mut at = path.clone();
            let mut steps = other.split("::").peekable();
            if steps.next_if_eq(&"crate").is_some() {
                at.clear();
            } else if steps.peek().is_some_and(|step| ["super", "self"].contains(step)) {
                while let Some(step) = steps.next_if(|step| ["super", "self"].contains(step)) {
                    at.truncate(at.len() - usize::from(step == "super"));
                }
            } else {
                continue;
            }
            at.extend(steps.map(str::to_owned));
            if let [first, second, ..] = at.as_slice()
                && first == module
                && second != part
            {
                named.insert(second.clone());
            }
        }
    }
    modules
}

#[test]
fn the_parts_of_a_module_do_not_depend_on_each_other_in_circles() {
    for (module, mut parts) in parts_of_modules() {
        let names: BTreeSet<_> = parts.keys().cloned().collect();
        for named in parts.values_mut() {
            named.retain(|name| names.contains(name));
        }
        // What depends on nothing that is left is taken away, until nothing or a circle is left.
        while let Some(free) =
            parts.iter().find(|(_, named)| named.is_empty()).map(|(name, _)| name.clone())
        {
            parts.remove(&free);
            for named in parts.values_mut() {
                named.remove(&free);
            }
        }
        assert!(parts.is_empty(), "a circle in {module}: {parts:#?}");
    }
}
