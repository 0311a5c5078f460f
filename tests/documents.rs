//! The documents against the code: what one of them lists, the other has.
//!
//! Every test collects names from the code (its tables, its sources, its migrations) and from one table of a
//! document, and fails with the names that only one of the two has. `scripts/test-documents` runs the lines.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]
#![expect(clippy::indexing_slicing, reason = "a table's row has the columns of its head")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use strongroom::common::scope::Scope;
use strongroom::config::{Config, Environment, VARIABLES};
use strongroom::console::layout::Screen;
use strongroom::database::Pools;
use strongroom::events::kind::EventType;
use strongroom::http::problem::ProblemCode;

const REFERENCE: &str = "docs/reference.md";
const ARCHITECTURE: &str = "docs/architecture.md";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Files below a folder with this ending, as paths from the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Every document that a reader may open.
fn documents() -> Vec<String> {
    let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "deploy/README.md"];
    top.map(str::to_owned).into_iter().chain(files("docs", ".md")).collect()
}

/// The sources without their unit tests.
fn sources() -> Vec<(String, String)> {
    let all = files("src", ".rs").into_iter().filter(|path| !path.ends_with("tests.rs"));
    all.map(|path| {
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        (path, code)
    })
    .collect()
}

fn fail_on_difference(
    what: &str,
    document: &str,
    code: &BTreeSet<String>,
    told: &BTreeSet<String>,
) {
    let missing: Vec<_> = code.difference(told).collect();
    let superfluous: Vec<_> = told.difference(code).collect();
    assert!(
        missing.is_empty() && superfluous.is_empty(),
        "{what} in {document}: missing {missing:?}, superfluous {superfluous:?}"
    );
}

/// The text of a section: from its heading to the next one of the same level or above.
fn section(document: &str, heading: &str) -> String {
    let text = read(document);
    let level = heading.split(' ').next().unwrap().len();
    let mut lines = text.lines().skip_while(|line| *line != heading).skip(1).peekable();
    assert!(lines.peek().is_some(), "{document} lacks {heading:?}");
    let ends = |line: &str| {
        let depth = line.chars().take_while(|c| *c == '#').count();
        depth > 0 && depth <= level && line[depth..].starts_with(' ')
    };
    lines.take_while(|line| !ends(line)).collect::<Vec<_>>().join("\n")
}

/// The rows of every table of a section, their cells trimmed; heads and rules left out.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = section(document, heading);
    let lines: Vec<_> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|--");
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_head = lines.get(at + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !is_head {
            let cells = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap().split('|');
            found.push(cells.map(|cell| cell.trim().to_owned()).collect());
        }
    }
    assert!(!found.is_empty(), "{heading:?} of {document} has no table");
    found
}

/// What stands between backticks in a cell.
fn code_spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names of a table's first column, and the row of each. A name that comes twice fails.
fn by_name(document: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let mut named = BTreeMap::new();
    for row in rows(document, heading) {
        for name in code_spans(&row[0]) {
            let twice = named.insert(name.clone(), row.clone());
            assert!(twice.is_none(), "{heading:?} of {document} has {name} twice");
        }
    }
    named
}

fn names<T>(named: &BTreeMap<String, T>) -> BTreeSet<String> {
    named.keys().cloned().collect()
}

/// Words of these characters in a text.
fn words(text: &str, part: fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !part(c)).filter(|word| !word.is_empty())
}

#[test]
fn every_problem_code_is_told_with_its_status_and_its_title() {
    let told = by_name(REFERENCE, "## Problem codes");
    let codes = ProblemCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    fail_on_difference("problem codes", REFERENCE, &codes, &names(&told));
    for code in ProblemCode::ALL {
        let row = &told[code.as_str()];
        let [status, title] = [code.status().as_str().to_owned(), code.title().to_owned()];
        assert_eq!([&row[1], &row[2]], [&status, &title], "{}", code.as_str());
        assert!(!row[3].is_empty(), "{} says nothing", code.as_str());
    }
}

#[test]
fn every_problem_code_that_a_document_names_beside_a_status_exists() {
    let codes: BTreeSet<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    for document in ["docs/integrating.md", "docs/calling-dapi.md", "docs/administering.md"] {
        let text = read(document);
        for (before, rest) in text.match_indices(" `").map(|(at, _)| text.split_at(at)) {
            let status = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
            let name = rest[2..].split('`').next().unwrap();
            let is_code = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if status.len() == 3 && status.starts_with(['4', '5']) && is_code {
                assert!(
                    codes.contains(name),
                    "{document} names {status} {name}, which no answer has"
                );
            }
        }
    }
}

/// A metric as `/metrics` has it.
#[derive(Default)]
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The configuration with these variables beside the two that are needed.
fn configured(variables: &[(&str, &str)]) -> Result<Config, String> {
    let mut environment = Environment::default();
    environment.set("DATABASE_URL", "postgres://nowhere.invalid/strongroom");
    environment.set("STRONGROOM_MASTER_KEYS", "k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    for (name, value) in variables {
        environment.set(name, *value);
    }
    Config::from_environment(&environment).map_err(|error| error.to_string())
}

/// What a replica registers and has something to show of before anything happened, by name.
fn metrics_at_rest() -> BTreeMap<String, Metric> {
    let config = configured(&[]).unwrap();
    let registry = strongroom::service::metrics_registry(&Pools::new(&config.database));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for (name, kind) in
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
    {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        kind.clone_into(&mut found.entry(name).or_default().kind);
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let sample =
            line.split_once('{').and_then(|(name, rest)| Some((name, rest.split_once('}')?.0)));
        let Some((metric, labels)) =
            sample.and_then(|(name, labels)| Some((found.get_mut(name)?, labels)))
        else {
            continue;
        };
        for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
            let values = metric.labels.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
    found
}

/// The names of metrics that the sources register, without the `_total` of counters: also those that show nothing
/// before the first request.
fn registered() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, code) in sources() {
        for (call, unit) in [(".register(", ""), (".register_with_unit(", "_seconds")] {
            for (at, _) in code.match_indices(call) {
                let arguments = code[at + call.len()..].trim_start();
                if let Some(name) = arguments.strip_prefix('"').and_then(|it| it.split('"').next())
                {
                    found.insert(format!("strongroom_{name}{unit}"));
                }
            }
        }
    }
    found
}

#[test]
fn every_metric_is_told_with_its_kind_its_labels_and_their_values() {
    let told = rows(REFERENCE, "## Metrics");
    let told: BTreeMap<_, _> = told
        .into_iter()
        .map(|row| {
            let name = code_spans(&row[0]).remove(0);
            let (name, labels) = name.split_once('{').unwrap_or((&name, ""));
            (name.to_owned(), (labels.trim_end_matches('}').to_owned(), row))
        })
        .collect();
    let at_rest = metrics_at_rest();
    let bare = |name: &str| name.trim_end_matches("_total").to_owned();
    let code = registered().into_iter().chain(at_rest.keys().map(|name| bare(name))).collect();
    fail_on_difference("metrics", REFERENCE, &code, &told.keys().map(|name| bare(name)).collect());
    for (name, metric) in at_rest {
        let (labels, row) = &told.get(&name).unwrap_or_else(|| panic!("{name} is told otherwise"));
        assert_eq!(row[1], metric.kind, "{name}");
        assert!(!row[2].is_empty(), "{name} says nothing");
        let values = code_spans(&row[2]);
        for (label, known) in metric.labels.iter().filter(|(label, _)| *label != "le") {
            assert!(labels.split(',').any(|it| it == label), "{name} lacks the label {label}");
            let missing: Vec<_> = known.iter().filter(|value| !values.contains(value)).collect();
            assert!(missing.is_empty(), "{name}{{{label}}} lacks {missing:?}");
        }
    }
}

#[test]
fn what_looks_like_a_metric_in_a_document_is_one() {
    let mut known = registered();
    known.extend(metrics_at_rest().into_keys());
    let named_elsewhere: String = files("migrations", ".sql")
        .iter()
        .map(|path| read(path))
        .chain([read("scripts/compose-roles")])
        // The crates beside the service.
        .chain(["strongroom_dev strongroom_common".to_owned()])
        .collect();
    for document in documents() {
        for word in words(&read(&document), |c| c.is_ascii_lowercase() || c == '_') {
            let is_metric = word.starts_with("strongroom_") && !word.ends_with('_');
            let sample = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end));
            assert!(
                !is_metric
                    || known.contains(word)
                    || sample.is_some_and(|family| known.contains(family))
                    || named_elsewhere.contains(word),
                "{document} names {word}, which is no metric"
            );
        }
    }
}

#[test]
fn every_setting_is_told_with_its_file_and_its_default() {
    let told = by_name(REFERENCE, "## Settings");
    let code = VARIABLES.iter().map(|name| (*name).to_owned()).collect();
    fail_on_difference("settings", REFERENCE, &code, &names(&told));
    let at_rest = format!("{:?}", configured(&[]).unwrap());
    for (name, row) in &told {
        let file = format!("{name}_FILE");
        let (text, nowhere) = (name.as_str(), file.as_str());
        let mistakes =
            configured(&[(text, ""), (nowhere, "/nowhere/at-all")]).err().unwrap_or_default();
        let reads_file = mistakes.contains(&format!("{file}: names a file"));
        assert_eq!(row[1] == "`_FILE`", reads_file, "whether {name} can come from a file");
        if let Some(default) = row[2].strip_prefix('`').and_then(|it| it.strip_suffix('`')) {
            let set = configured(&[(text, default)]).map(|config| format!("{config:?}"));
            assert_eq!(set.as_ref(), Ok(&at_rest), "{name} does not default to {default}");
        }
        assert!(!row[3].is_empty(), "{name} says nothing");
    }
}

fn is_setting(word: &str) -> bool {
    let word = word.strip_suffix("_FILE").unwrap_or(word);
    ["STRONGROOM_", "DAPI_"].iter().any(|prefix| word.starts_with(prefix)) && !word.ends_with('_')
}

fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase() || c == '_'
}

#[test]
fn every_setting_that_the_sources_name_is_one_that_is_known() {
    for (path, code) in sources() {
        for literal in code.split('"').skip(1).step_by(2) {
            let is_name = literal.chars().all(is_upper) && is_setting(literal);
            assert!(
                !is_name || VARIABLES.contains(&literal),
                "{path} reads {literal}, which has no row"
            );
        }
    }
}

#[test]
fn what_looks_like_a_setting_in_a_document_is_one() {
    let mut others = read("Makefile") + &read(".ci/run") + &read("compose.yaml");
    others.extend(files("scripts", "").iter().map(|path| read(path)));
    for document in documents() {
        let text = read(&document);
        for word in words(&text, is_upper).filter(|word| is_setting(word)) {
            let known = VARIABLES.contains(&word.strip_suffix("_FILE").unwrap_or(word));
            // `DAPI_URL` is an object of Dapi's SDK.
            let set_here = text.contains(&format!("{word}=")) || word == "DAPI_URL";
            assert!(
                known || set_here || others.contains(word),
                "{document} names {word}, which is no setting"
            );
        }
    }
}

#[test]
fn every_scope_is_told_where_scopes_are_listed() {
    let code = Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect();
    for (document, heading) in
        [(REFERENCE, "## Scopes"), ("docs/integrating.md", "## Which scopes to ask for")]
    {
        let told = by_name(document, heading);
        fail_on_difference("scopes", document, &code, &names(&told));
        for scope in Scope::ALL {
            let row = &told[scope.as_str()][1];
            let linked = row.contains("](");
            assert!(linked || row == scope.describe(), "{document} has another word for {scope}");
        }
    }
}

/// Endings of `'connection.' || …` in SQL: the kinds of a revocation, and the statuses in which a connection ends.
const CONNECTION_ACTIONS: [&str; 7] =
    ["delink", "invalidate", "rejected", "expired", "orphaned", "delinked", "invalidated"];

/// The literals of the sources that look like an audit action.
fn audit_actions() -> BTreeSet<String> {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_action = |literal: &str| {
        let parts: Vec<_> = literal.split('.').collect();
        parts.len() == 2
            && parts.iter().all(|part| is_part(part))
            // Hosts of examples, fields of spans, fields of a client, and the ceremonies of passkeys.
            && !["example", "com"].contains(&parts[1])
            && !["db", "otel", "http", "error", "server", "service", "strongroom", "webauthn", "workload"].contains(&parts[0])
    };
    let mut found = BTreeSet::new();
    let statements = files("src", ".sql").into_iter().map(|path| (path.clone(), read(&path)));
    for (path, code) in sources().into_iter().chain(statements) {
        // The types of events look alike, which `every_type_of_event_is_told` has, and the places of sealed values.
        let places = "src/vault/data_key_rotation/place.rs";
        let others = ["src/sandbox/", "src/dev/", "src/events/kind.rs", places];
        if others.iter().any(|it| path.starts_with(it)) {
            continue;
        }
        let code: String = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        for line in code.lines() {
            for literal in line.split(['\'', '"']).filter(|literal| is_action(literal)) {
                found.insert(literal.to_owned());
            }
        }
        if code.contains("'connection.' ||") {
            found.extend(CONNECTION_ACTIONS.iter().map(|end| format!("connection.{end}")));
        }
    }
    found
}

#[test]
fn every_audit_action_is_told() {
    let told = by_name(REFERENCE, "## Audit actions");
    fail_on_difference("audit actions", REFERENCE, &audit_actions(), &names(&told));
}

#[test]
fn every_type_of_event_is_told() {
    let told = by_name("docs/events.md", "## The types");
    let code = EventType::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
    fail_on_difference("types of events", "docs/events.md", &code, &names(&told));
}

#[test]
fn the_architecture_counts_the_ways_into_the_audit_trail() {
    let statements = files("src", ".sql").into_iter().map(|path| read(&path));
    let direct: usize = sources()
        .into_iter()
        .map(|(_, code)| code)
        .chain(statements)
        .map(|code| code.matches("INSERT INTO audit_events").count())
        .sum();
    assert_eq!(direct, 5, "{ARCHITECTURE} says how many statements write their rows by themselves");
    assert!(read(ARCHITECTURE).contains("five hot batched statements"));
}

/// Every command that does something, as it is typed.
fn commands(command: &clap::Command, typed: &str) -> BTreeSet<String> {
    let below: Vec<_> = command.get_subcommands().filter(|it| it.get_name() != "help").collect();
    if below.is_empty() {
        return BTreeSet::from([typed.to_owned()]);
    }
    below.iter().flat_map(|it| commands(it, &format!("{typed} {}", it.get_name()))).collect()
}

#[test]
fn every_command_is_told() {
    let code = commands(&strongroom::cli::Cli::command(), "strongroom");
    let told = by_name(REFERENCE, "## Commands");
    fail_on_difference("commands", REFERENCE, &code, &names(&told));
}

/// The modules of the library: the folders and files below `src`.
fn modules() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("src")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.map(|name| name.trim_end_matches(".rs").to_owned());
    names.filter(|name| !["lib", "main"].contains(&name.as_str())).collect()
}

#[test]
fn the_map_of_the_library_has_every_module() {
    let text = read("src/lib.rs");
    let told = text.lines().filter_map(|line| line.strip_prefix("//! - [`")?.split('`').next());
    fail_on_difference("modules", "src/lib.rs", &modules(), &told.map(str::to_owned).collect());
}

#[test]
fn the_architecture_has_every_module_and_every_crate() {
    let mut code = modules();
    let crates = std::fs::read_dir(root().join("crates")).into_iter().flatten();
    code.extend(crates.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    let told = by_name(ARCHITECTURE, "## The modules");
    fail_on_difference("modules", ARCHITECTURE, &code, &names(&told));
}

/// The tables that the migrations leave behind.
fn tables() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files("migrations", ".sql") {
        let text = read(&path);
        let code =
            text.lines().map(|line| line.split("--").next().unwrap()).collect::<Vec<_>>().join(" ");
        for statement in code.split(';') {
            let words: Vec<_> =
                words(statement, |c| c.is_ascii_alphanumeric() || c == '_').take(6).collect();
            match words.as_slice() {
                ["CREATE", "TABLE", "IF", "NOT", "EXISTS", table]
                | ["CREATE", "TABLE", table, ..] => {
                    found.insert((*table).to_owned());
                }
                ["DROP", "TABLE", "IF", "EXISTS", table, ..] | ["DROP", "TABLE", table, ..] => {
                    found.remove(*table);
                }
                ["ALTER", "TABLE", from, "RENAME", "TO", to] => {
                    found.remove(*from);
                    found.insert((*to).to_owned());
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_architecture_has_every_table() {
    let told = by_name(ARCHITECTURE, "## Data model");
    fail_on_difference("tables", ARCHITECTURE, &tables(), &names(&told));
}

/// A document's lines outside of fenced blocks.
fn prose(document: &str) -> String {
    let text = read(document);
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let text = prose(document);
    for heading in
        text.lines().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#')))
    {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|it| !found.contains(it));
        found.insert(free.unwrap());
    }
    found
}

#[test]
fn every_relative_link_and_every_anchor_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = prose(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&document).parent().unwrap();
            let file = if path.is_empty() { PathBuf::from(&document) } else { folder.join(path) };
            let file = file.to_str().unwrap();
            let exists = root().join(file).exists();
            if !exists || (!anchor.is_empty() && !anchors(file).contains(anchor)) {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn every_document_but_records_and_runbooks_is_linked_from_the_readme() {
    let text = prose("README.md");
    assert!(text.contains("](deploy/README.md"), "the README does not link deploy/README.md");
    for document in files("docs", ".md") {
        let is_listed_elsewhere =
            ["docs/adr/0", "docs/runbooks/"].iter().any(|start| document.starts_with(start));
        let linked = text.contains(&format!("]({document}"));
        assert!(linked || is_listed_elsewhere, "the README does not link {document}");
    }
    for (folder, index) in
        [("docs/adr", "docs/adr/README.md"), ("docs/runbooks", "docs/runbooks/README.md")]
    {
        let text = prose(index);
        for document in files(folder, ".md").iter().filter(|path| *path != index) {
            let name = document.rsplit('/').next().unwrap();
            assert!(text.contains(&format!("]({name}")), "{index} does not link {document}");
        }
    }
}

const RULES: &str = "deploy/prometheus/strongroom.rules.yml";

/// What a text in `PromQL` selects: a metric, and the values that it wants of each label, regular expressions of plain
/// words taken apart.
fn selected(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let part = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("strongroom_") {
        if text[..at].ends_with(part) {
            continue;
        }
        let rest = &text[at..];
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let inside = rest[end..].strip_prefix('{').and_then(|it| it.split('}').next());
        let labels = inside.unwrap_or("").replace("\\\"", "\"");
        let wanted = labels.split("\",").filter_map(|it| it.split_once(['=', '!'])).flat_map(
            |(label, values)| {
                let values = values.trim_start_matches(['=', '~', '"']).trim_end_matches('"');
                values.split('|').map(|it| (label.to_owned(), it.to_owned())).collect::<Vec<_>>()
            },
        );
        found.push((rest[..end].to_owned(), wanted.collect()));
    }
    found
}

/// The lines of the alerts that Prometheus evaluates.
fn expressions() -> String {
    let text = read(RULES);
    let alert = |block: &str| block.split("labels:").next().unwrap().to_owned();
    text.split("- alert: ").skip(1).map(alert).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_and_values_of_labels_that_exist() {
    let at_rest = metrics_at_rest();
    let mut known = registered();
    known.extend(at_rest.keys().cloned());
    let texts = [expressions(), read("deploy/prometheus/dashboard.json")];
    let asked: Vec<_> = texts.iter().flat_map(|text| selected(text)).collect();
    assert!(asked.len() > 100, "only {} metrics are asked for", asked.len());
    for (name, labels) in asked {
        let family = name.trim_end_matches("_bucket");
        // Registered names lack the `_total` of counters.
        let exists = known.contains(family) || known.contains(family.trim_end_matches("_total"));
        assert!(exists, "{name} is asked for, which is no metric");
        let Some(metric) = at_rest.get(family) else { continue };
        for (label, value) in labels {
            // `instance` is Prometheus' own.
            if let Some(values) = metric.labels.get(&label) {
                assert!(values.contains(&value), "{name} never has {label}={value}");
            }
        }
    }
}

#[test]
fn every_alert_is_told_with_its_severity_and_its_runbook() {
    let text = read(RULES);
    let told = by_name("docs/operating.md", "### Alerts");
    let mut code = BTreeSet::new();
    for alert in text.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        let field = |field: &str| {
            let line = alert.lines().find_map(|line| line.trim().strip_prefix(field));
            line.unwrap_or_else(|| panic!("{name} has no {field}")).trim()
        };
        assert!(!field("summary:").is_empty(), "{name} says nothing");
        let runbook = field("runbook: docs/");
        let (path, anchor) = runbook.split_once('#').unwrap_or((runbook, ""));
        let document = format!("docs/{path}");
        assert!(root().join(&document).exists(), "{name} leads to {document}");
        assert!(anchor.is_empty() || anchors(&document).contains(anchor), "{name}: {runbook}");
        let screen = field("console: /to/").split('?').next().unwrap().to_owned();
        assert!(Screen::path_of(&screen).is_some(), "{name} leads to {screen}, which is no screen");
        let row = told.get(name).unwrap_or_else(|| panic!("{name} is not told"));
        assert!(row[0].contains(&format!("]({runbook})")), "{name} leads elsewhere: {}", row[0]);
        assert_eq!(row[1], field("severity:"), "{name}");
        let tested = read("deploy/prometheus/strongroom.rules_test.yml");
        assert!(tested.contains(&format!("alertname: {name}\n")), "{name} is never seen to fire");
        assert!(tested.contains(&format!("alertname: {name},")), "{name} is never seen to rest");
        code.insert(name.to_owned());
    }
    fail_on_difference("alerts", "docs/operating.md", &code, &names(&told));
}

#[test]
fn the_chart_takes_every_setting_as_what_it_is() {
    let schema: serde_json::Value =
        serde_json::from_str(&read("deploy/helm/strongroom/values.schema.json")).unwrap();
    let properties = |name: &str| -> BTreeSet<String> {
        let properties = schema["properties"][name]["properties"].as_object().unwrap();
        properties.iter().filter(|(_, it)| it.is_object()).map(|(name, _)| name.clone()).collect()
    };
    let told = by_name(REFERENCE, "## Settings");
    let (secrets, others): (Vec<_>, Vec<_>) = told.iter().partition(|(_, row)| row[1] == "`_FILE`");
    // The Job alone has the owner's URL.
    let mut secrets: BTreeSet<_> = secrets.into_iter().map(|(name, _)| name.clone()).collect();
    assert!(secrets.remove("STRONGROOM_MIGRATE_DATABASE_URL"));
    assert_eq!(properties("secrets"), secrets);
    // The chart sets these itself, or keeps them out of values as they are secrets without a file.
    let kept = [
        "STRONGROOM_LISTEN",
        "STRONGROOM_METRICS_LISTEN",
        "STRONGROOM_MIGRATE",
        "STRONGROOM_SHUTDOWN_GRACE",
        "STRONGROOM_WORKERS",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ];
    let others = others.into_iter().map(|(name, _)| name.clone());
    let others: BTreeSet<_> = others.filter(|name| !kept.contains(&name.as_str())).collect();
    assert_eq!(properties("config"), others);
}

#[test]
fn what_is_deployed_sets_settings_that_exist() {
    let mut deployed = files("deploy", "");
    deployed.extend(["Dockerfile", "compose.yaml"].map(str::to_owned));
    for path in deployed.iter().filter(|path| *path != "deploy/README.md") {
        for word in words(&read(path), is_upper).filter(|word| is_setting(word)) {
            let known = VARIABLES.contains(&word.strip_suffix("_FILE").unwrap_or(word));
            // The passwords of the two roles, which PostgreSQL's image hands to its script.
            let of_the_roles =
                ["STRONGROOM_OWNER_PASSWORD", "STRONGROOM_SERVICE_PASSWORD"].contains(&word);
            assert!(known || of_the_roles, "{path} names {word}, which is no setting");
        }
    }
}

#[test]
fn licences_that_may_be_linked_in_are_licences_whose_texts_are_passed_on() {
    let list = |path: &str, name: &str| -> BTreeSet<String> {
        let text = read(path);
        let after = text.split(&format!("\n{name} = [")).nth(1).unwrap();
        let inside = after.split(']').next().unwrap();
        inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(list("about.toml", "accepted"), list("deny.toml", "allow"));
}

#[test]
fn the_chart_and_the_service_have_one_version() {
    let chart = read("deploy/helm/strongroom/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("\nversion: {version}\n")), "{chart}");
    assert!(chart.contains(&format!("\nappVersion: \"{version}\"\n")), "{chart}");
}
