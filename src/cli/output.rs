//! Output of commands: text for people or JSON for scripts; errors go to standard error.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Prints results in the chosen format.
#[derive(Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a result: `value` as JSON, or `text` for people.
    pub(super) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        let line = match self.format {
            Format::Text => text(),
            Format::Json => serde_json::to_string_pretty(value).unwrap_or_default(),
        };
        // A closed pipe (`| head`) is not a failure.
        let _ = writeln!(std::io::stdout(), "{}", line.trim_end());
    }

    /// Prints one line of JSON in either format. Returns `false` if the pipe is closed.
    #[expect(clippy::unused_self, reason = "what is printed goes through here")]
    pub(super) fn line<T: Serialize>(&self, value: &T) -> bool {
        let line = serde_json::to_string(value).unwrap_or_default();
        writeln!(std::io::stdout(), "{line}").is_ok()
    }

    /// Prints the progress of long work, if standard error is a terminal.
    pub(super) fn progress(&self, text: &str) {
        let mut stderr = std::io::stderr();
        if self.format == Format::Text && stderr.is_terminal() {
            let _ = write!(stderr, "\r\u{1b}[K{text}");
            let _ = stderr.flush();
        }
    }

    /// Ends the line of [`progress`](Self::progress).
    pub(super) fn progress_done(&self) {
        self.progress("");
    }

    /// Prints an error.
    pub(super) fn error(&self, error: &dyn std::error::Error) {
        let _ = match self.format {
            Format::Text => writeln!(std::io::stderr(), "strongroom: {error}"),
            Format::Json => {
                let json = serde_json::json!({ "error": error.to_string() });
                writeln!(std::io::stderr(), "{json}")
            }
        };
    }
}

/// Formats rows under a heading, in columns as wide as they need.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let heading = heading.map(str::to_owned);
    std::iter::once(&heading).chain(rows).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "x".to_owned()], ["äöü".to_owned(), String::new()]];
        assert_eq!(table(["n", "value"], &rows), "n    value\na    x\näöü");
    }
}
