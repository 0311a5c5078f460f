//! A call on a connection's behalf: the caller's fields as they came, with the secrets put in, and the
//! answer as it comes.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_ENCODING;
use reqwest::{Response, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::client::describe;
use super::{AppCredentials, UserSecret};

/// A field of a JSON object: its name, and its value as it came.
pub type Field = (String, Box<RawValue>);

/// What is sent: an object with the caller's fields and the secrets.
#[derive(Debug)]
pub struct CallBody<'a> {
    /// The caller's, without any that are put in here.
    pub fields: &'a [Field],
    /// The app, whose secret is put in.
    pub app: &'a AppCredentials,
    /// The user's secret, where it is a call with a token.
    pub user_secret: Option<&'a UserSecret>,
    /// Whether the app's key is put in as well.
    pub with_app_key: bool,
}

impl Serialize for CallBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.fields {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("appSecret", self.app.app_secret.expose())?;
        if self.with_app_key {
            map.serialize_entry("appKey", &self.app.app_key)?;
        }
        if let Some(user_secret) = self.user_secret {
            map.serialize_entry("userSecret", user_secret.expose())?;
        }
        map.end()
    }
}

/// An answer whose head has come.
#[derive(Debug)]
pub struct CallAnswer {
    response: Response,
    /// How long Dapi asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// A call whose answer did not come, or broke off.
#[derive(Debug)]
pub struct CallLost {
    /// What happened, without secrets.
    pub what: String,
    /// Time ran out.
    pub timeout: bool,
    /// The request may have reached Dapi.
    pub sent: bool,
}

impl CallAnswer {
    pub(super) fn new(response: Response, retry_after: Option<Duration>) -> Self {
        Self { response, retry_after }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Whether the body is encoded, which nobody asked for.
    #[must_use]
    pub fn is_encoded(&self) -> bool {
        let encoding = self.response.headers().get(CONTENT_ENCODING);
        encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// How long the body is, where the head tells.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallLost> {
        self.response.chunk().await.map_err(|error| CallLost {
            what: describe(&error),
            timeout: error.is_timeout(),
            sent: true,
        })
    }
}
