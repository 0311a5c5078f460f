//! Output of commands: text for people or JSON for scripts; errors go to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Failure;

/// The width of a table, in columns: what every terminal has.
const WIDTH: u16 = 80;
/// The longest word that a table never breaks, in characters: a time to the second.
const SHORT_WORD: usize = 20;
/// How often the display of long work is drawn again while nothing happens.
const TICK: Duration = Duration::from_millis(200);

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

    /// Starts the display of long work, on standard error and only if that is a terminal. `total` is how many steps it
    /// has, if that is known.
    pub(super) fn progress(&self, total: Option<u64>) -> Progress {
        let bar = if self.format == Format::Json {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        };
        let style = match total {
            Some(_) => "{bar:20} {pos}/{len} {msg} {per_sec}, {eta} left",
            None => "{spinner} {msg} ({elapsed})",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    /// Returns whether a person at a terminal can be asked. A script has decided already.
    pub(super) fn asks(&self) -> bool {
        self.format == Format::Text && std::io::stdin().is_terminal()
    }

    /// Asks before what cannot be undone, unless `yes` says so or nobody can be asked.
    ///
    /// # Errors
    /// Returns [`Failure::Usage`] if the answer is not `yes`.
    pub(super) fn confirm(&self, what: &str, yes: bool) -> Result<(), Failure> {
        self.ask(&format!("{what} This cannot be undone."), yes)
    }

    /// Asks before what has to be looked at first, unless `yes` says so or nobody can be asked.
    ///
    /// # Errors
    /// Returns [`Failure::Usage`] if the answer is not `yes`.
    pub(super) fn ask(&self, question: &str, yes: bool) -> Result<(), Failure> {
        if yes || !self.asks() {
            return Ok(());
        }
        let mut stderr = std::io::stderr();
        let _ = write!(stderr, "{question} Type `yes` to go on: ");
        let _ = stderr.flush();
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim().eq_ignore_ascii_case("yes") {
            return Ok(());
        }
        Err(Failure::Usage("nothing was done".to_owned()))
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

/// The display of long work. It disappears with this value.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Shows how many steps are done, and of how many.
    pub(super) fn steps(&self, done: i64, total: i64) {
        self.0.set_length(u64::try_from(total).unwrap_or(0));
        self.0.set_position(u64::try_from(done).unwrap_or(0));
    }

    /// Shows what is waited for.
    pub(super) fn message(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Formats a number of things: `1 connection`, `2 connections`.
pub(super) fn count(n: i64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// Formats rows under a heading in at most 80 columns. Cells wrap between words, never within a word that fits; the
/// first column never wraps.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(heading)
        .add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let cells = rows.iter().filter_map(|row| row.get(index));
        let words = cells.flat_map(|cell| cell.split_whitespace());
        let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
        if index == 0 || longest <= SHORT_WORD {
            let heading = heading.get(index).map_or(0, |title| title.chars().count());
            let width = u16::try_from(longest.max(heading) + 2).unwrap_or(WIDTH);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "x".to_owned()], ["äöü".to_owned(), String::new()]];
        assert_eq!(table(["n", "value"], &rows), "n    value\na    x\näöü");
    }

    #[test]
    fn a_table_fits_80_columns_and_breaks_neither_ids_nor_times() {
        let id = format!("conn_{}", "0".repeat(32));
        let row = |text: &str| {
            [
                format!("{id}\nada"),
                "revoking".to_owned(),
                "2026-01-31T12:00:00Z".to_owned(),
                text.to_owned(),
            ]
        };
        let text =
            table(["ID AND USER", "STATUS", "AT", "WHY"], &[row("a reason of several words")]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for whole in [id.as_str(), "revoking", "2026-01-31T12:00:00Z", "several"] {
            assert!(text.contains(whole), "{text}");
        }
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!([0, 1, 2].map(|n| count(n, "token")), ["0 tokens", "1 token", "2 tokens"]);
    }
}
