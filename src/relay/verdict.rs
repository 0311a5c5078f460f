//! The verdict of a streamed answer, from the fields at its top level (Dapi's `success`, `type` and `status`, Plaid's
//! `error_code`): read while its bytes pass, without holding them.

use crate::providers::{Provider, Said};

/// The longest name or value of a field that is read, in bytes of JSON, with its quotation marks.
const MAX_TOKEN: usize = 256;

/// Reads what an answer says from its pieces. Anything that is not JSON leaves the default.
#[derive(Debug)]
pub(super) struct VerdictReader {
    provider: Provider,
    /// Number of open objects and arrays.
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The raw name or value that is being read at the top level, at most [`MAX_TOKEN`] bytes of it.
    token: Vec<u8>,
    /// The field whose value comes next, if it is one of those that count.
    field: Option<Field>,
    /// The outermost object is closed.
    ended: bool,
    said: Said,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Success,
    Kind,
    Status,
}

impl VerdictReader {
    /// Creates a reader for an answer of this HTTP status.
    pub(super) fn new(provider: Provider, status: u16) -> Self {
        // Plaid's answers do not say that they succeeded; the status does, and no `error_code` denies it.
        let succeeded = provider == Provider::Plaid && (200..300).contains(&status);
        Self {
            provider,
            depth: 0,
            in_text: false,
            escaped: false,
            token: Vec::new(),
            field: None,
            ended: false,
            said: Said { succeeded, ..Said::default() },
        }
    }

    /// Returns the verdict, or `None` if the object has not ended yet.
    pub(super) fn verdict(&self) -> Option<&Said> {
        self.ended.then_some(&self.said)
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
        self.field = match (self.provider, self.text().as_deref()) {
            (Provider::Dapi, Some("success")) => Some(Field::Success),
            (Provider::Dapi, Some("status")) => Some(Field::Status),
            (Provider::Dapi, Some("type")) | (Provider::Plaid, Some("error_code")) => {
                Some(Field::Kind)
            }
            _ => None,
        };
        self.token.clear();
    }

    fn value_ends(&mut self) {
        match self.field.take() {
            Some(Field::Success) => {
                let raw = self.token.strip_prefix(b"\"").unwrap_or(&self.token);
                let raw = raw.strip_suffix(b"\"").unwrap_or(raw);
                self.said.succeeded = raw == b"1" || raw.eq_ignore_ascii_case(b"true");
            }
            Some(Field::Kind) => {
                self.said.kind = self.text();
                self.said.succeeded &= self.provider == Provider::Dapi || self.said.kind.is_none();
            }
            Some(Field::Status) => {
                self.said.asks = self.text().as_deref() == Some("user_input_required");
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
        let mut reader = VerdictReader::new(Provider::Dapi, 200);
        reader.push(json.as_bytes());
        let Said { succeeded, kind, asks } = reader.said;
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
            let mut reader = VerdictReader::new(Provider::Dapi, 200);
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
        let mut reader = VerdictReader::new(Provider::Dapi, 200);
        reader.push(br#"{"type":"X","data":["#);
        assert_eq!(reader.verdict(), None);
    }

    #[test]
    fn plaid_says_by_its_status_and_its_error_code() {
        let says = |status, json: &str| {
            let mut reader = VerdictReader::new(Provider::Plaid, status);
            reader.push(json.as_bytes());
            (reader.said.succeeded, reader.said.kind)
        };
        assert_eq!(says(200, r#"{"accounts":[{"error_code":"X"}],"success":false}"#), (true, None));
        assert_eq!(says(200, r#"{"error_code":null}"#), (true, None));
        let gone = r#"{"error_type":"ITEM_ERROR","error_code":"ITEM_NOT_FOUND"}"#;
        assert_eq!(says(400, gone), (false, Some("ITEM_NOT_FOUND".to_owned())));
        assert_eq!(says(200, gone), (false, Some("ITEM_NOT_FOUND".to_owned())));
    }
}
