//! What an answer says about itself. Of one that is streamed it is read as its bytes go by: an answer of many
//! megabytes says it as well as a short one.

use crate::dapi::Said;

/// The longest name or value of a field that is looked at, in bytes as they stand in JSON.
const LONGEST: usize = 256;

/// What an answer says at the top level of its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `success` is true.
    pub(super) succeeded: bool,
    /// `type`.
    pub(super) kind: Option<String>,
    /// `status` says that the user is asked for something.
    pub(super) asks: bool,
}

impl From<Said> for Verdict {
    fn from(Said { success, kind, asks }: Said) -> Self {
        Self { succeeded: success == Some(true), kind, asks }
    }
}

/// Reads a [`Verdict`] from the pieces of an answer. What is not JSON says nothing.
#[derive(Debug, Default)]
pub(super) struct Skim {
    /// How many objects and arrays are open.
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The name or the value that is being read at the top level, as it stands there.
    token: Vec<u8>,
    /// The field whose value comes, where it is one that counts.
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

impl Skim {
    /// What an answer says that was read to the end of its object; `None` where it was not.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.ended.then_some(&self.verdict)
    }

    /// The next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        while let Some((byte, rest)) = piece.split_first() {
            let beyond = self.ended || (self.in_text && !self.escaped && !self.keeps());
            let plain = |byte: &u8| self.ended || !matches!(byte, b'"' | b'\\');
            // Most of a large answer is text that does not count.
            if beyond && plain(byte) {
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

    /// Of what is too long to count the beginning is kept, which then does not read as anything.
    fn keep(&mut self, byte: u8) {
        if self.keeps() {
            self.token.push(byte);
        }
    }

    fn keeps(&self) -> bool {
        self.depth == 1 && !self.ended && self.token.len() < LONGEST
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
        let mut skim = Skim::default();
        skim.push(json.as_bytes());
        let Verdict { succeeded, kind, asks } = skim.verdict;
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
    fn what_is_no_object_says_nothing() {
        for text in ["", "<html>\"type\":\"X\"", "[\"type\",\"X\"]", "null", "}}}}{"] {
            assert_eq!(says(text), (false, None, false), "{text}");
        }
        let long = format!(r#"{{"type":"{}"}}"#, "X".repeat(10_000));
        assert_eq!(says(&long), (false, None, false));
    }

    #[test]
    fn it_is_the_same_wherever_the_pieces_end() {
        let json =
            r#"{"data":["\\",{"x":"}"}],"success":false,"msg":"\\\"","type":"ACCOUNT_LOCKED"}"#;
        for step in 1..json.len() {
            let mut skim = Skim::default();
            for piece in json.as_bytes().chunks(step) {
                assert!(skim.verdict().is_none());
                skim.push(piece);
            }
            let kind = skim.verdict().and_then(|verdict| verdict.kind.as_deref());
            assert_eq!(kind, Some("ACCOUNT_LOCKED"), "{step}");
        }
    }

    #[test]
    fn what_breaks_off_has_no_verdict() {
        let mut skim = Skim::default();
        skim.push(br#"{"type":"X","data":["#);
        assert_eq!(skim.verdict(), None);
    }
}
