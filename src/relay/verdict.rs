//! The verdict of an answer: `success`, `type` and `status` at its top level. The verdict of a streamed answer is read
//! while its bytes pass, without holding them.

use crate::providers::Said;

/// The longest name or value of a field that is read, in bytes of JSON, with its quotation marks.
const MAX_TOKEN: usize = 256;

/// The fields at the top level of an answer's object that decide about the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `success` is `true`, `"true"` or 1.
    pub(super) succeeded: bool,
    /// `type`.
    pub(super) kind: Option<String>,
    /// `status` is `user_input_required`: the refusal is a question to the user.
    pub(super) asks: bool,
}

impl From<Said> for Verdict {
    fn from(Said { success, kind, asks }: Said) -> Self {
        Self { succeeded: success == Some(true), kind, asks }
    }
}

/// Reads a [`Verdict`] from the pieces of an answer. Anything that is not JSON leaves the default verdict.
#[derive(Debug, Default)]
pub(super) struct VerdictReader {
    /// Number of open objects and arrays.
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The raw name or value that is being read at the top level, at most [`MAX_TOKEN`] bytes of it.
    token: Vec<u8>,
    /// The field whose value comes next, if it is one of the three.
    field: Option<Field>,
    /// The outermost object is closed.
    ended: bool,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Success,
    Type,
    Status,
}

impl VerdictReader {
    /// Returns the verdict, or `None` if the object has not ended yet.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.ended.then_some(&self.verdict)
    }

    /// Reads the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        while let Some((byte, rest)) = piece.split_first() {
            let skips = self.ended || (self.in_text && !self.escaped && !self.keeps());
            let plain = |byte: &u8| self.ended || !matches!(byte, b'"' | b'\\');
            // The fast path: most of a large answer is strings that are not at the top level.
            if skips && plain(byte) {
                let length = piece.iter().take_while(|byte| plain(byte)).count();
                piece = piece.get(length..).unwrap_or_default();
                continue;
            }
            self.step(*byte);
            piece = rest;
        }
    }

    fn step(&mut self, byte: u8) {
        if self.in_text {
            self.keep(byte);
            self.in_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => {
                self.in_text = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.keep(byte);
                self.depth += 1;
            }
            b'}' | b']' => self.closes(),
            b':' if self.depth == 1 => self.name_ends(),
            b',' if self.depth == 1 => self.value_ends(),
            _ if !byte.is_ascii_whitespace() => self.keep(byte),
            _ => {}
        }
    }

    fn closes(&mut self) {
        if self.depth == 1 && !self.ended {
            self.value_ends();
            self.ended = true;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    /// Appends a byte to the token. A token that is too long is cut off, so that it does not parse.
    fn keep(&mut self, byte: u8) {
        if self.keeps() {
            self.token.push(byte);
        }
    }

    fn keeps(&self) -> bool {
        self.depth == 1 && !self.ended && self.token.len() < MAX_TOKEN
    }

    fn name_ends(&mut self) {
        self.field = match self.text().as_deref() {
            Some("success") => Some(Field::Success),
            Some("type") => Some(Field::Type),
            Some("status") => Some(Field::Status),
            _ => None,
        };
        self.token.clear();
    }

    fn value_ends(&mut self) {
        match self.field.take() {
            Some(Field::Success) => {
                let raw = self.token.strip_prefix(b"\"").unwrap_or(&self.token);
                let raw = raw.strip_suffix(b"\"").unwrap_or(raw);
                self.verdict.succeeded = raw == b"1" || raw.eq_ignore_ascii_case(b"true");
            }
            Some(Field::Type) => self.verdict.kind = self.text(),
            Some(Field::Status) => {
                self.verdict.asks = self.text().as_deref() == Some("user_input_required");
            }
            None => {}
        }
        self.token.clear();
    }

    fn text(&self) -> Option<String> {
        serde_json::from_slice(&self.token).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(json: &str) -> (bool, Option<String>, bool) {
        let mut reader = VerdictReader::default();
        reader.push(json.as_bytes());
        let Verdict { succeeded, kind, asks } = reader.verdict;
        (succeeded, kind, asks)
    }

    fn refused(kind: &str) -> (bool, Option<String>, bool) {
        (false, Some(kind.to_owned()), false)
    }

    #[test]
    fn success_type_and_status_are_read_from_the_top_level_alone() {
        assert_eq!(says(r#"{"success":true,"type":null}"#), (true, None, false));
        assert_eq!(says(r#" { "type" : "X" , "success" : false }"#), refused("X"));
        assert_eq!(says("\u{feff}{\"type\":\"X\"}"), refused("X"));
        assert_eq!(says(r#"{"status":"user_input_required"}"#), (false, None, true));
        let nested = r#"{"a":{"success":true,"type":"N"},"b":[{"type":"M"}],"c":"\"type\":\"T\"","type":"X"}"#;
        assert_eq!(says(nested), refused("X"));
        assert_eq!(says(r#"{"ty\u0070e":"A\u0042"}"#), refused("AB"));
        assert_eq!(says(r#"{"success":"false","type":["X"]}"#), (false, None, false));
    }

    #[test]
    fn anything_but_an_object_has_the_default_verdict() {
        for text in ["", "<html>\"type\":\"X\"", "[\"type\",\"X\"]", "null", "}}}}{"] {
            assert_eq!(says(text), (false, None, false), "{text}");
        }
        let long = format!(r#"{{"type":"{}"}}"#, "X".repeat(10_000));
        assert_eq!(says(&long), (false, None, false));
    }

    #[test]
    fn the_verdict_is_the_same_wherever_the_pieces_end() {
        let json =
            r#"{"data":["\\",{"x":"}"}],"success":false,"msg":"\\\"","type":"ACCOUNT_LOCKED"}"#;
        for step in 1..json.len() {
            let mut reader = VerdictReader::default();
            for piece in json.as_bytes().chunks(step) {
                assert!(reader.verdict().is_none());
                reader.push(piece);
            }
            let kind = reader.verdict().and_then(|verdict| verdict.kind.as_deref());
            assert_eq!(kind, Some("ACCOUNT_LOCKED"), "{step}");
        }
    }

    #[test]
    fn an_answer_that_breaks_off_has_no_verdict() {
        let mut reader = VerdictReader::default();
        reader.push(br#"{"type":"X","data":["#);
        assert_eq!(reader.verdict(), None);
    }
}
