//! Redacts the secrets that were sent from an answer that repeats them. Dapi is not known to do so, but a proxy on the
//! way or an error page that shows the request might.

use bytes::Bytes;

/// Replaces a secret.
const REPLACEMENT: &[u8] = b"(secret)";
/// Secrets shorter than this, in bytes, are not redacted: they would match by chance.
const SHORTEST: usize = 4;

/// Redacts secrets from a stream of pieces, also if one spans several pieces.
#[derive(Debug)]
pub(super) struct Redactor {
    needles: Vec<Vec<u8>>,
    longest: usize,
    /// The last bytes, which may be the beginning of a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// Redacts these secrets, as they are and in two spellings of JSON encoders: with `\/`, and with `=` and `&` escaped
    /// for HTML.
    pub(super) fn new(secrets: &[&str]) -> Self {
        let mut needles: Vec<Vec<u8>> = Vec::new();
        for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST) {
            let solidus = secret.replace('/', "\\/");
            let html = secret.replace('=', "\\u003d").replace('&', "\\u0026");
            for spelling in [(*secret).to_owned(), solidus, html] {
                if !needles.contains(&spelling.clone().into_bytes()) {
                    needles.push(spelling.into_bytes());
                }
            }
        }
        let longest = needles.iter().map(Vec::len).max().unwrap_or(0);
        Self { needles, longest, held: Vec::new() }
    }

    /// Adds a piece. Returns what is redacted so far, without the last bytes, which may begin a secret.
    pub(super) fn push(&mut self, piece: &[u8]) -> Bytes {
        self.held.extend_from_slice(piece);
        let keep = self.longest.saturating_sub(1);
        self.take(self.held.len().saturating_sub(keep))
    }

    /// Returns the bytes that were held back. Call it at the end of the stream.
    pub(super) fn finish(&mut self) -> Bytes {
        self.take(self.held.len())
    }

    /// Redacts and removes the held bytes up to `end`, and beyond it if a secret begins before `end`.
    fn take(&mut self, end: usize) -> Bytes {
        let mut clean = Vec::with_capacity(end);
        let mut at = 0;
        while at < end {
            let rest = self.held.get(at..).unwrap_or_default();
            if let Some(needle) = self.needles.iter().find(|needle| rest.starts_with(needle)) {
                clean.extend_from_slice(REPLACEMENT);
                at += needle.len();
            } else {
                clean.extend(rest.first());
                at += 1;
            }
        }
        self.held.drain(..at.min(self.held.len()));
        clean.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str, step: usize) -> String {
        let mut redactor = Redactor::new(&["to/ken==", "abc", "s3cret"]);
        let mut clean = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            clean.extend_from_slice(&redactor.push(piece));
        }
        clean.extend_from_slice(&redactor.finish());
        String::from_utf8(clean).unwrap()
    }

    #[test]
    fn a_secret_is_redacted_wherever_the_pieces_end() {
        let text =
            r#"{"a":"to/ken==","b":"to\/ken==","c":"to/ken\u003d\u003d","d":"s3crets3cret"}"#;
        let expected = r#"{"a":"(secret)","b":"(secret)","c":"(secret)","d":"(secret)(secret)"}"#;
        for step in 1..text.len() {
            assert_eq!(redacted(text, step), expected, "{step}");
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = r#"{"short":"abc","almost":"to/ken=","s3cre":"t"}"#;
        for step in [1, 3, 100] {
            assert_eq!(redacted(text, step), text);
        }
        assert_eq!(redacted("", 1), "");
    }
}
