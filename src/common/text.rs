//! Text from outside, checked once and then trusted.

/// Why a text was refused; contains no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// The text is empty or white space only.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than allowed, in bytes of UTF-8.
    #[error("must not be longer than {0} bytes")]
    TooLong(usize),
    /// The text contains U+0000, which PostgreSQL's `text` cannot store (SQLSTATE 22021).
    #[error("must not contain a NUL character")]
    Nul,
    /// The text contains a line break, a tab, DEL or another control character.
    #[error("must not contain control characters")]
    Control,
    /// The text begins or ends with white space.
    #[error("must not begin or end with white space")]
    Surrounded,
    /// The text contains a character that `Authorization: Bearer` cannot carry.
    #[error("must be visible ASCII characters without spaces")]
    NotVisible,
}

/// The pattern of what [`check`] accepts, in the ECMA-262 dialect of JSON Schema.
pub const TEXT: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";
/// The pattern of what [`check_secret`] accepts.
pub const SECRET: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// The pattern of what [`check_bearer`] accepts.
pub const BEARER: &str = r"^[\u0021-\u007e]+$";

/// Declares types that stand for a checked text in the `OpenAPI` document: its pattern, its maximum
/// length in bytes and an example, from the constants that the check itself uses.
///
/// `maxLength` counts characters, so that a text with others than ASCII may be refused below it.
macro_rules! text_schemas {
    ($($(#[doc = $doc:literal])+ $name:ident, $pattern:expr, $min:literal to $max:expr, $example:expr;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!($($doc),+).trim()))
                    .min_length(Some($min))
                    .max_length(Some($max))
                    .pattern(Some($pattern))
                    .examples([$example])
                    .build()
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+ };
}
pub(crate) use text_schemas;

/// Accepts text that PostgreSQL can store and that is not blank, up to `max_bytes`.
pub fn check(text: &str, max_bytes: usize) -> Result<(), InvalidText> {
    if text.trim().is_empty() {
        Err(InvalidText::Empty)
    } else if text.len() > max_bytes {
        Err(InvalidText::TooLong(max_bytes))
    } else if text.contains('\0') {
        Err(InvalidText::Nul)
    } else {
        Ok(())
    }
}

/// Accepts what [`check`] does, without control characters: no id or secret of another service contains any,
/// and a value pasted with a line break would only fail later.
pub fn check_secret(text: &str, max_bytes: usize) -> Result<(), InvalidText> {
    check(text, max_bytes)?;
    // Nearly all text is ASCII, of which all bytes are looked at together.
    let found = if text.is_ascii() {
        text.bytes().fold(false, |found, byte| found | byte.is_ascii_control())
    } else {
        text.contains(char::is_control)
    };
    if found { Err(InvalidText::Control) } else { Ok(()) }
}

/// Accepts what [`check_secret`] does, without surrounding white space: a setting of one line.
pub fn check_line(text: &str, max_bytes: usize) -> Result<(), InvalidText> {
    check_secret(text, max_bytes)?;
    if text.trim() == text { Ok(()) } else { Err(InvalidText::Surrounded) }
}

/// Accepts what `Authorization: Bearer` carries (RFC 6750 §2.1, read liberally: visible ASCII).
pub fn check_bearer(text: &str, max_bytes: usize) -> Result<(), InvalidText> {
    check(text, max_bytes)?;
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible { Ok(()) } else { Err(InvalidText::NotVisible) }
}

/// Makes a text from another system safe to store and display: no NUL, at most `max_bytes`, cut at a character
/// boundary.
#[must_use]
pub fn tame(text: &str, max_bytes: usize) -> String {
    let mut tamed = text.replace('\0', "\u{fffd}");
    if tamed.len() > max_bytes {
        let mut end = max_bytes.saturating_sub('…'.len_utf8());
        while !tamed.is_char_boundary(end) {
            end -= 1;
        }
        tamed.truncate(end);
        tamed.push('…');
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_postgresql_cannot_hold_is_refused_before_it_gets_there() {
        assert_eq!(check("a\0b", 10), Err(InvalidText::Nul));
    }

    #[test]
    fn text_without_content_is_refused() {
        assert_eq!(check("", 10), Err(InvalidText::Empty));
        assert_eq!(check(" \t", 10), Err(InvalidText::Empty));
    }

    #[test]
    fn text_up_to_the_limit_is_accepted() {
        assert_eq!(check("äöü", 6), Ok(()));
        assert_eq!(check("äöü!", 6), Err(InvalidText::TooLong(6)));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for text in ["a\r", "\na", "a\tb", "a\u{7f}", "a\u{85}b", "\u{1b}[0m"] {
            assert_eq!(check_secret(text, 10), Err(InvalidText::Control), "{text:?}");
            assert_eq!(check_bearer(text, 10), Err(InvalidText::NotVisible), "{text:?}");
        }
        assert_eq!(check_secret("pass wörd ", 20), Ok(()));
        assert_eq!(check_line("pass wörd", 20), Ok(()));
        assert_eq!(check_line(" a", 20), Err(InvalidText::Surrounded));
        assert_eq!(check_bearer("eyJ.a-b_c~+/==", 20), Ok(()));
        for text in ["a b", "é", " a"] {
            assert_eq!(check_bearer(text, 10), Err(InvalidText::NotVisible), "{text:?}");
        }
    }

    #[test]
    fn foreign_text_is_cut_at_a_character_and_loses_its_nuls() {
        assert_eq!(tame("a\0b", 10), "a\u{fffd}b");
        assert_eq!(tame("ääää", 7), "ää…");
        assert_eq!(tame("ääää", 8), "ääää");
    }
}
