//! The cursor of events and of deliveries. No I/O, and no import of a sibling module.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::common::ids::AppId;

/// A place in an app's events. Opaque to callers; the app is a part of it, so that another app's is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventCursor {
    /// The app.
    pub app: AppId,
    /// The position of the last event that was read.
    pub position: i64,
}

/// The error of a text that is not a cursor of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of events")]
pub struct InvalidCursor;

impl std::fmt::Display for EventCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = [0; 24];
        let (app, position) = bytes.split_at_mut(16);
        app.copy_from_slice(self.app.uuid().as_bytes());
        position.copy_from_slice(&self.position.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl std::str::FromStr for EventCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (app, position) = bytes.split_first_chunk::<16>().ok_or(InvalidCursor)?;
        let position = i64::from_be_bytes(position.try_into().map_err(|_| InvalidCursor)?);
        if position < 0 {
            return Err(InvalidCursor);
        }
        Ok(Self { app: Uuid::from_bytes(*app).into(), position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        for position in [0, 7, i64::MAX] {
            let cursor = EventCursor { app: AppId::new(), position };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn foreign_text_is_no_cursor() {
        let negative = EventCursor { app: AppId::new(), position: -1 }.to_string();
        let short = URL_SAFE_NO_PAD.encode([1; 23]);
        let long = URL_SAFE_NO_PAD.encode([1; 25]);
        for text in ["", "x", "AZnzonwefTuaVD8rjA1ucQ", &negative, &short, &long] {
            assert_eq!(text.parse::<EventCursor>(), Err(InvalidCursor), "{text:?}");
        }
    }
}
