//! A span for each statement, and for each wait for a batch, in the names of OpenTelemetry's semantic conventions for
//! database clients. Spans hold a statement's name, never its text or a parameter.
//!
//! They are of level TRACE and cost a comparison if nothing listens. The level below keeps what logs promise: at DEBUG
//! and above, every line of a request has the request's span as its own.

use std::borrow::Cow;

use tracing::Span;
use tracing::field::Empty;

use super::Fault;

/// How a statement begins that has a name of its own.
const NAME: &str = "-- name: ";

/// Creates the span of one statement on one connection.
pub(super) fn of_statement(sql: &str) -> Span {
    if !tracing::span_enabled!(tracing::Level::TRACE) {
        return Span::none();
    }
    let summary = &*summary(sql);
    tracing::trace_span!(
        "query",
        otel.name = summary,
        otel.kind = "client",
        db.system.name = "postgresql",
        db.query.summary = summary,
        db.response.status_code = Empty,
        error.r#type = Empty,
    )
}

/// Creates the span of a caller's wait for the answer of a batched query.
pub(super) fn of_batched_query(summary: &'static str) -> Span {
    tracing::trace_span!(
        "batched_query",
        otel.name = summary,
        otel.kind = "client",
        db.system.name = "postgresql",
        db.query.summary = summary,
    )
}

/// Creates the span of a batch, which belongs to the trace of none of its callers and is linked with the spans of all.
pub(super) fn of_batch(summary: &'static str, size: usize) -> Span {
    tracing::trace_span!(
        parent: None,
        "batch",
        otel.name = summary,
        db.system.name = "postgresql",
        db.query.summary = summary,
        // By the conventions a batch has two operations at least.
        db.operation.batch.size = i64::try_from(size).ok().filter(|size| *size > 1),
    )
}

/// Records the error of a statement.
pub(super) fn record_error(span: &Span, error: &sqlx::Error) {
    if span.is_disabled() {
        return;
    }
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if let Some(code) = &code {
        span.record("db.response.status_code", &**code);
    }
    let other = if Fault::of(error) == Fault::Outage { "outage" } else { "_OTHER" };
    span.record("error.type", code.as_deref().unwrap_or(other));
}

/// Returns the name that a statement begins with, or else its verb and table: `SELECT connections`.
fn summary(sql: &str) -> Cow<'_, str> {
    let sql = sql.trim_start();
    if let Some(named) = sql.strip_prefix(NAME) {
        return named.lines().next().unwrap_or_default().trim_end().into();
    }
    let mut words = sql.split_whitespace();
    let verb = words.next().unwrap_or_default().trim_end_matches(';');
    let table = match verb {
        "SELECT" | "DELETE" => table_after_from(sql),
        // INSERT INTO, LOCK TABLE.
        "INSERT" | "LOCK" => words.nth(1),
        "UPDATE" => words.next(),
        _ => None,
    };
    let table = table.map(|table| table.split(['(', ';', ',']).next().unwrap_or(table));
    table.map_or(verb.into(), |table| format!("{verb} {table}").into())
}

/// Returns the word after the first `FROM` that is in no parentheses.
fn table_after_from(sql: &str) -> Option<&str> {
    let mut depth = 0_i32;
    let mut words = sql.split_whitespace();
    while let Some(word) = words.next() {
        if depth == 0 && word == "FROM" {
            return words.next();
        }
        let change = |c| match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth += word.chars().map(change).sum::<i32>();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn a_statement_is_summarised_by_its_name_or_else_by_verb_and_table() {
        let cases = [
            ("-- name: insert_intent\n-- Inserts.\nWITH x AS (SELECT 1) SELECT", "insert_intent"),
            ("SELECT id FROM users WHERE app_id = $1", "SELECT users"),
            ("SELECT EXISTS (SELECT FROM erasures e) AS x FROM users u", "SELECT users"),
            ("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "SELECT"),
            ("DELETE FROM token_leases WHERE lease_id = $1", "DELETE token_leases"),
            ("INSERT INTO apps(id) VALUES ($1)", "INSERT apps"),
            ("UPDATE clients SET name = $1", "UPDATE clients"),
            ("LOCK TABLE apps IN SHARE MODE", "LOCK apps"),
            ("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '2s'", "BEGIN"),
            ("COMMIT", "COMMIT"),
            ("", ""),
        ];
        for (sql, expected) in cases {
            assert_eq!(summary(sql), expected, "{sql}");
        }
    }
}
