//! The file of an import: CSV with a heading, or one JSON object a line. A complaint names the line and never repeats a
//! value, which is a secret or may be one in the wrong column.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use clap::ValueEnum;

use crate::cli::Failure;
use crate::common::secret::SecretText;
use crate::http::body;

/// The fields, as `POST /v1/connections/import` names them.
const FIELDS: [&str; 7] =
    ["clientUserID", "connectionID", "itemID", "accessToken", "userSecret", "userID", "tokenID"];

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Comma-separated values (RFC 4180) under a heading.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    /// Returns the format that the name of a file implies.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// A column of the file, and the field that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    field: &'static str,
    name: String,
}

/// Parses `FIELD=COLUMN`.
pub(super) fn column(text: &str) -> Result<Column, String> {
    let (field, name) = text.split_once('=').ok_or("is written FIELD=COLUMN")?;
    Ok(Column { field: self::field(field)?, name: name.to_owned() })
}

/// Parses the name of a field.
pub(super) fn field(text: &str) -> Result<&'static str, String> {
    let known = FIELDS.into_iter().find(|field| *field == text);
    known.ok_or_else(|| format!("the fields are {}", FIELDS.join(", ")))
}

/// Which columns are read, and as what.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) named: Vec<Column>,
    /// Leave out columns that are no field.
    pub(super) ignore_others: bool,
}

impl Columns {
    /// Returns the field that a column holds; `None` if the column is left out.
    fn field_of(&self, column: &str) -> Result<Option<&'static str>, String> {
        if let Some(named) = self.named.iter().find(|named| named.name == column) {
            return Ok(Some(named.field));
        }
        // A field that another column was named for is not taken from the column of its own name.
        let taken = |field: &str| self.named.iter().any(|named| named.field == field);
        match FIELDS.into_iter().find(|field| *field == column && !taken(field)) {
            Some(field) => Ok(Some(field)),
            None if self.ignore_others => Ok(None),
            None => Err(format!(
                "the column `{column}` is no field; say what it is with --column FIELD={column}, or leave such columns \
                 out with --ignore-other-columns"
            )),
        }
    }
}

/// A token of the file.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it begins; the first line is 1.
    pub(super) number: u64,
    /// By field. What is empty is left out.
    pub(super) fields: BTreeMap<&'static str, SecretText>,
}

/// A line that cannot be imported.
#[derive(Debug, serde::Serialize)]
pub(super) struct WrongLine {
    pub(super) line: u64,
    pub(super) error: String,
}

/// Reads the whole file. Lines that cannot be read are returned beside those that can.
///
/// # Errors
/// If nothing can be read: there is no heading, or a column is unknown.
pub(super) fn read(
    source: impl Read,
    format: Format,
    columns: &Columns,
) -> Result<(Vec<Line>, Vec<WrongLine>), Failure> {
    match format {
        Format::Csv => read_csv(source, columns),
        Format::Jsonl => read_json(BufReader::new(source), columns),
    }
}

fn read_csv(source: impl Read, columns: &Columns) -> Result<(Vec<Line>, Vec<WrongLine>), Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(source);
    let heading = reader.headers().map_err(|error| Failure::Usage(complaint(&error)))?;
    // Excel begins a file with a byte order mark.
    let heading = heading.iter().map(|name| name.trim_start_matches('\u{feff}'));
    let fields = heading.map(|name| columns.field_of(name)).collect::<Result<Vec<_>, _>>();
    let fields = fields.map_err(Failure::Usage)?;
    let mut known = std::collections::BTreeSet::new();
    if let Some(twice) = fields.iter().flatten().find(|field| !known.insert(**field)) {
        return Err(Failure::Usage(format!("two columns are `{twice}`")));
    }
    if known.is_empty() {
        return Err(Failure::Usage(format!(
            "the first line has to name the columns: {}",
            FIELDS.join(", ")
        )));
    }
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    loop {
        let number = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(false) => return Ok((lines, wrong)),
            Ok(true) => {
                let number = record.position().map_or(number, csv::Position::line);
                let values = fields.iter().zip(record.iter());
                let fields = values.filter_map(|(field, value)| {
                    let field = (*field)?;
                    (!value.is_empty()).then(|| (field, SecretText::new(value.to_owned())))
                });
                lines.push(Line { number, fields: fields.collect() });
            }
            Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => {
                return Err(Failure::Other(complaint(&error)));
            }
            Err(error) => {
                let line = error.position().map_or(number, csv::Position::line);
                wrong.push(WrongLine { line, error: complaint(&error) });
            }
        }
    }
}

/// Describes an error without the values that csv's own words may repeat.
fn complaint(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => format!("the file cannot be read: {error}"),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} values, and the heading {expected_len}")
        }
        _ => "is not CSV".to_owned(),
    }
}

fn read_json(
    source: impl BufRead,
    columns: &Columns,
) -> Result<(Vec<Line>, Vec<WrongLine>), Failure> {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for (number, text) in (1..).zip(source.split(b'\n')) {
        let text =
            text.map_err(|error| Failure::Other(format!("the file cannot be read: {error}")))?;
        let text = zeroize::Zeroizing::new(text);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match json_fields(&text, columns) {
            Ok(fields) => lines.push(Line { number, fields }),
            Err(error) => wrong.push(WrongLine { line: number, error }),
        }
    }
    Ok((lines, wrong))
}

fn json_fields(
    text: &[u8],
    columns: &Columns,
) -> Result<BTreeMap<&'static str, SecretText>, String> {
    let members = body::parse_json::<BTreeMap<String, Option<SecretText>>>(text);
    let members = members.map_err(|problem| problem.detail().to_owned())?;
    let mut fields = BTreeMap::new();
    for (name, value) in members {
        let (Some(field), Some(value)) = (columns.field_of(&name)?, value) else { continue };
        if !value.expose().is_empty() && fields.insert(field, value).is_some() {
            return Err(format!("two members are `{field}`"));
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> Columns {
        Columns { named: Vec::new(), ignore_others: false }
    }

    fn texts(lines: &[Line]) -> Vec<(u64, Vec<(&str, &str)>)> {
        let fields = |line: &Line| {
            line.fields
                .iter()
                .map(|(field, value)| (*field, value.expose().to_owned()))
                .collect::<Vec<_>>()
        };
        let leak = |text: String| -> &'static str { text.leak() };
        lines
            .iter()
            .map(|line| {
                (line.number, fields(line).into_iter().map(|(f, v)| (f, leak(v))).collect())
            })
            .collect()
    }

    #[test]
    fn both_formats_are_read_to_the_same_fields() {
        let csv = "clientUserID,itemID,accessToken,userID\nada,i1,t1,\n";
        let json = "{\"clientUserID\": \"ada\", \"itemID\": \"i1\", \"accessToken\": \"t1\", \"userID\": null}\n";
        let (from_csv, _) = read(csv.as_bytes(), Format::Csv, &strict()).unwrap();
        let (from_json, _) = read(json.as_bytes(), Format::Jsonl, &strict()).unwrap();
        let fields = vec![("accessToken", "t1"), ("clientUserID", "ada"), ("itemID", "i1")];
        assert_eq!(texts(&from_csv), [(2, fields.clone())]);
        assert_eq!(texts(&from_json), [(1, fields)]);
    }

    #[test]
    fn columns_of_an_old_store_are_named_as_fields() {
        let columns = Columns {
            named: vec![
                column("accessToken=token").unwrap(),
                column("clientUserID=user_id").unwrap(),
            ],
            ignore_others: true,
        };
        let csv = "\u{feff}id,user_id,token,accessToken\n1,ada,t1,old\n";
        let (lines, _) = read(csv.as_bytes(), Format::Csv, &columns).unwrap();
        assert_eq!(texts(&lines), [(2, vec![("accessToken", "t1"), ("clientUserID", "ada")])]);
    }

    #[test]
    fn an_unknown_column_is_refused_with_what_to_say() {
        let error = read("user,accessToken\n".as_bytes(), Format::Csv, &strict()).unwrap_err();
        assert!(error.to_string().contains("--column FIELD=user"), "{error}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_its_values_are_not() {
        let csv = "clientUserID,accessToken\nada,t1\nbob,canary,more\neve,t3\n";
        let (lines, wrong) = read(csv.as_bytes(), Format::Csv, &strict()).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (wrong[0].line, wrong[0].error.as_str()),
            (3, "has 3 values, and the heading 2")
        );
        let json = "{\"accessToken\": [\"canary\"]}\nnonsense-canary\n\n{\"userSecret\": \"s\"}";
        let (lines, wrong) = read(json.as_bytes(), Format::Jsonl, &strict()).unwrap();
        assert_eq!(lines[0].number, 4);
        assert_eq!(wrong.iter().map(|it| it.line).collect::<Vec<_>>(), [1, 2]);
        assert!(wrong.iter().all(|it| !it.error.contains("canary")), "{wrong:?}");
    }
}
