//! Paths of calls through an upstream: they may not escape from its base URL, however a server on
//! the way decodes them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How often a path is decoded before it is judged: servers behind servers decode repeatedly.
const DECODINGS: usize = 3;

/// The path has a second reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have no empty, `.` or `..` segment, no backslash, no control character and no encoded slash"
)]
pub(super) struct InvalidPath;

/// Checks a path as it arrived, still encoded and without a leading slash.
pub(super) fn check(path: &str) -> Result<(), InvalidPath> {
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        // The last one may be empty: a trailing slash is significant to some servers.
        if (segment.is_empty() && !is_last) || !is_harmless(segment) {
            return Err(InvalidPath);
        }
    }
    Ok(())
}

fn is_harmless(segment: &str) -> bool {
    let mut read = Cow::Borrowed(segment.as_bytes());
    for _ in 0..=DECODINGS {
        if !is_plain(&read) {
            return false;
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        let decoded: Vec<u8> = percent_decode_str(&text).collect();
        if decoded == *read {
            return true;
        }
        read = Cow::Owned(decoded);
    }
    false
}

/// Returns whether a segment is neither a step up nor hides a separator. Some servers cut a segment
/// at a `;` before they read it.
fn is_plain(segment: &[u8]) -> bool {
    let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    let name = name.trim_ascii();
    name != b"."
        && name != b".."
        && !segment.iter().any(|byte| matches!(byte, b'/' | b'\\') || byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_path_is_taken_as_it_is() {
        for path in [
            "",
            "conversations",
            "v1/contacts/7/",
            "a%20b/c%3Ad/caf%C3%A9",
            "x;v=1/y",
            "...",
            "a..b",
            ".well-known/x",
            "100%25",
            "~user/@me/+1",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn what_could_be_read_as_a_way_out_is_refused() {
        for path in [
            "..",
            ".",
            "a/../b",
            "a/./b",
            "/evil.example",
            "//evil.example/x",
            "a//b",
            "%2e%2e/x",
            "%2E%2e/x",
            ".%2e/x",
            "%252e%252e/x",
            "%25252e%25252e/x",
            "a%2f..%2fb",
            "a%2Fb",
            "a%252fb",
            "a%5cb",
            "a\\b",
            "..;/x",
            "..;a=b/x",
            "%2e%2e%3b/x",
            "..%20/x",
            "a%00b",
            "a%0d%0ab",
            "%2525252525252e",
        ] {
            assert_eq!(check(path), Err(InvalidPath), "{path}");
        }
    }
}
