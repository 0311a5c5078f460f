//! Types of secret text, and which types can be sealed.

pub use strongroom_common::secret::SecretText;
use zeroize::Zeroizing;

/// A secret that can be sealed: it converts to bytes and back.
pub trait Sealable: Sized {
    /// Returns the bytes to seal.
    fn expose_bytes(&self) -> &[u8];

    /// Restores the secret from the sealed bytes; returns `None` if they are not valid for this type.
    fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self>;

    /// Compares in a time that depends on the lengths alone.
    #[must_use]
    fn same_as(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.expose_bytes(), other.expose_bytes()).into()
    }
}

impl Sealable for SecretText {
    fn expose_bytes(&self) -> &[u8] {
        self.expose().as_bytes()
    }

    fn from_bytes(mut bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        String::from_utf8(std::mem::take(&mut *bytes)).ok().map(Self::new)
    }
}

/// Declares a distinct type of secret text, so that a token cannot be passed as a code.
macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name($crate::common::secret::SecretText);

        impl $name {
            /// Wraps the text, which is wiped when dropped.
            #[must_use]
            pub fn new(text: impl Into<$crate::common::secret::SecretText>) -> Self {
                Self(text.into())
            }

            /// Returns the text. The only way to read it.
            #[must_use]
            pub fn expose(&self) -> &str {
                self.0.expose()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }

        impl $crate::common::secret::Sealable for $name {
            fn expose_bytes(&self) -> &[u8] {
                self.0.expose_bytes()
            }

            fn from_bytes(bytes: zeroize::Zeroizing<Vec<u8>>) -> Option<Self> {
                <$crate::common::secret::SecretText as $crate::common::secret::Sealable>::from_bytes(bytes).map(Self)
            }
        }
    };
}
pub(crate) use secret_text;

#[cfg(test)]
mod tests {
    use super::*;

    secret_text!(
        /// A secret for this test.
        Whisper
    );

    #[test]
    fn a_secret_does_not_show_when_printed() {
        let whisper = Whisper::new("canary".to_owned());
        assert_eq!(format!("{whisper:?}"), "Whisper(secret)");
    }

    #[test]
    fn secrets_compare_by_content() {
        let one = Whisper::new("canary".to_owned());
        assert_eq!(one.expose(), "canary");
        assert!(one.same_as(&Whisper::new("canary".to_owned())));
        assert!(!one.same_as(&Whisper::new("canarx".to_owned())));
        assert!(!one.same_as(&Whisper::new("canary ".to_owned())));
    }

    #[test]
    fn bytes_that_are_not_text_make_no_secret() {
        assert!(Whisper::from_bytes(Zeroizing::new(vec![0xff, 0xfe])).is_none());
    }
}
