//! The HTTP client: it connects to allowed addresses alone, follows no redirect and retries
//! nothing.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, redirect};
use zeroize::Zeroizing;

use super::{OutboundUrl, Reach};
use crate::common::coding::{Codings, Spoilt};
use crate::common::{retry_after, tls};

/// The time limit of a connection, DNS, TCP and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    reach: Reach,
}

/// Every address of a name is forbidden.
#[derive(Debug, thiserror::Error)]
#[error("its address is not a public one")]
struct NotPublic;

/// Resolves names as the system does and drops forbidden addresses.
struct Guard(Reach);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

impl Client {
    /// Returns a client with its own connections.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up, for example without root certificates.
    pub fn new(reach: Reach) -> reqwest::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "this is the module of outbound calls")]
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .dns_resolver(std::sync::Arc::new(Guard(reach)))
            .connect_timeout(CONNECT_TIMEOUT)
            .https_only(reach == Reach::Public)
            // Shorter than servers keep idle connections, so that a request rarely meets a closing
            // one.
            .pool_idle_timeout(Duration::from_secs(20))
            .http1_only();
        // A proxy from the environment would resolve names itself, and the guard would see the
        // proxy's address only.
        if reach == Reach::Public {
            http = http.no_proxy();
        }
        Ok(Self { http: tls::shared(http).build()?, reach })
    }

    /// Which addresses this client may reach.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Starts a request; `limit` covers all of it, the response's body included. A URL with a
    /// literal address bypasses the resolver, so [`OutboundUrl`] has checked that one.
    pub fn request(&self, method: Method, url: &OutboundUrl, limit: Duration) -> RequestBuilder {
        self.http.request(method, url.url().clone()).timeout(limit)
    }
}

/// Why no response arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The name leads to forbidden addresses; nothing was sent.
    NotAllowed,
    /// Time ran out.
    Timeout,
    /// No connection, or a broken one; a description without the URL.
    Unreachable(String),
}

impl From<&reqwest::Error> for NoAnswer {
    fn from(error: &reqwest::Error) -> Self {
        let mut cause: &dyn std::error::Error = error;
        loop {
            if cause.is::<NotPublic>() {
                return Self::NotAllowed;
            }
            match cause.source() {
                Some(source) => cause = source,
                None if error.is_timeout() => return Self::Timeout,
                None => {
                    return Self::Unreachable(crate::common::text::tame(&cause.to_string(), 200));
                }
            }
        }
    }
}

/// Why a response's body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It exceeds the limit.
    #[error("an answer of excessive size")]
    TooLarge,
    /// It ended early or timed out.
    #[error("an answer that broke off")]
    BrokenOff,
    /// Its content coding is unknown or its bytes do not match the coding.
    #[error("an answer whose encoding cannot be read")]
    Encoding,
}

/// Reads a response's body, decoded, up to `max` bytes. It is wiped when dropped, because it may
/// hold a token.
pub async fn read_bounded(
    mut response: Response,
    max: usize,
) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let values = response.headers().get_all(CONTENT_ENCODING).iter();
    let codings = Codings::read(values.map(HeaderValue::as_bytes));
    let codings = codings.map_err(|_| Unreadable::Encoding)?;
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|_| Unreadable::BrokenOff)? {
        if bytes.len() + chunk.len() > max {
            return Err(Unreadable::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    if codings.is_identity() {
        return Ok(bytes);
    }
    let decoded = codings.decode(&bytes, max);
    let bytes = Zeroizing::new(decoded.bytes);
    decoded.end.map(|()| bytes).map_err(|what| match what {
        Spoilt::TooLarge => Unreadable::TooLarge,
        Spoilt::BrokenOff => Unreadable::BrokenOff,
        Spoilt::Damaged => Unreadable::Encoding,
    })
}

/// How long an answer asks to be left alone (`Retry-After`, RFC 9110 §10.2.3).
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    retry_after::read(text(RETRY_AFTER)?, text(DATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(host: &str) -> NoAnswer {
        let client = Client::new(Reach::Public).unwrap();
        let url = OutboundUrl::parse(&format!("https://{host}:1/"), Reach::Public).unwrap();
        let sent = client.request(Method::GET, &url, Duration::from_secs(5)).send().await;
        NoAnswer::from(&sent.unwrap_err())
    }

    #[tokio::test]
    async fn a_name_that_stands_for_this_machine_is_not_connected_to() {
        assert_eq!(refusal("localhost").await, NoAnswer::NotAllowed);
    }

    #[tokio::test]
    async fn where_private_addresses_are_allowed_it_is() {
        let client = Client::new(Reach::Anywhere).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url =
            OutboundUrl::parse(&format!("http://localhost:{port}/"), Reach::Anywhere).unwrap();
        let sent = client.request(Method::GET, &url, Duration::from_secs(5));
        tokio::spawn(sent.send());
        assert!(listener.accept().await.is_ok());
    }
}
