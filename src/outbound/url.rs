//! URLs that callers configure, validated once.

use std::net::IpAddr;

use url::{Host, Url};

use super::Reach;

/// The maximum length of a URL, in bytes.
pub const MAX_URL: usize = 2048;

/// Why a URL is invalid. Repeats no part of it, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a URL with a host.
    #[error("must be a URL such as https://api.example.com/path, of at most {MAX_URL} bytes")]
    Form,
    /// Not https.
    #[error("must begin with https://")]
    NotHttps,
    /// A scheme that is neither http nor https.
    #[error("must begin with https:// or http://")]
    NotHttp,
    /// A user name or a password.
    #[error("must not hold a user name or a password")]
    Credentials,
    /// A fragment.
    #[error("must not have a fragment")]
    Fragment,
    /// A query, in a base URL.
    #[error("must not have a query")]
    Query,
    /// A literal address that may not be reached.
    #[error("must not name a loopback, link-local, private or otherwise not public address")]
    NotPublic,
}

/// A URL that calls may go to, as far as the URL alone shows; the addresses of a name are checked
/// when the connection is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundUrl(Url);

impl OutboundUrl {
    /// Parses a URL with the scheme https, or http as well if private addresses may be reached.
    pub fn parse(text: &str, reach: Reach) -> Result<Self, InvalidUrl> {
        if text.len() > MAX_URL || text.contains(char::is_whitespace) {
            return Err(InvalidUrl::Form);
        }
        let url = Url::parse(text).map_err(|_| InvalidUrl::Form)?;
        match (url.scheme(), reach) {
            ("https", _) | ("http", Reach::Anywhere) => {}
            (_, Reach::Public) => return Err(InvalidUrl::NotHttps),
            (_, Reach::Anywhere) => return Err(InvalidUrl::NotHttp),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Credentials);
        }
        if url.fragment().is_some() {
            return Err(InvalidUrl::Fragment);
        }
        match literal(&url) {
            Some(address) if !reach.allows(address) => Err(InvalidUrl::NotPublic),
            _ => Ok(Self(url)),
        }
    }

    /// Parses a URL under which paths are called: it may have no query.
    pub fn parse_base(text: &str, reach: Reach) -> Result<Self, InvalidUrl> {
        let base = Self::parse(text, reach)?;
        if base.0.query().is_some() { Err(InvalidUrl::Query) } else { Ok(base) }
    }

    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Returns the URL of `path` under this one, or `None` if it would lead anywhere else. `path`
    /// has no leading slash.
    #[must_use]
    pub fn under(&self, path: &str, query: Option<&str>) -> Option<Self> {
        let mut url = self.0.clone();
        let base = format!("{}/", self.0.path().trim_end_matches('/'));
        url.set_path(&format!("{base}{path}"));
        url.set_query(query);
        let inside = url.origin() == self.0.origin() && url.path().starts_with(&base);
        inside.then_some(Self(url))
    }
}

/// Returns the address that a URL has in place of a host name. The `url` crate has normalized every
/// spelling of one (`0x7f.1`, `2130706433`) by then, as the URL Standard requires.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<InvalidUrl> {
        OutboundUrl::parse(text, Reach::Public).err()
    }

    #[test]
    fn a_public_https_url_is_taken() {
        for text in ["https://api.example.com/oauth/token?x=1", "https://1.1.1.1:8443/"] {
            assert_eq!(refused(text), None, "{text}");
        }
        assert!(OutboundUrl::parse("http://127.0.0.1:8081/x", Reach::Anywhere).is_ok());
    }

    #[test]
    fn what_a_url_may_not_hold_is_told_without_repeating_it() {
        assert_eq!(refused("http://api.example.com"), Some(InvalidUrl::NotHttps));
        assert_eq!(refused("ftp://api.example.com"), Some(InvalidUrl::NotHttps));
        assert_eq!(refused("https://u:p@api.example.com"), Some(InvalidUrl::Credentials));
        assert_eq!(refused("https://u@api.example.com"), Some(InvalidUrl::Credentials));
        assert_eq!(refused("https://api.example.com#x"), Some(InvalidUrl::Fragment));
        for text in ["", "api.example.com", "https://", "https://a b", "https://a/\nb"] {
            assert_eq!(refused(text), Some(InvalidUrl::Form), "{text:?}");
        }
        let file = OutboundUrl::parse("file:///etc/passwd", Reach::Anywhere);
        assert_eq!(file, Err(InvalidUrl::NotHttp));
        let base = OutboundUrl::parse_base("https://api.example.com/x?y", Reach::Public);
        assert_eq!(base, Err(InvalidUrl::Query));
    }

    #[test]
    fn an_address_that_is_not_public_is_known_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.0.1.",
            "0x7f.0.0.1",
            "2130706433",
            "0177.0.0.1",
            "169.254.169.254",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[fd00::1]",
            "0",
        ] {
            assert_eq!(refused(&format!("https://{host}/")), Some(InvalidUrl::NotPublic), "{host}");
        }
    }

    #[test]
    fn a_path_stays_under_its_base() {
        let base = OutboundUrl::parse_base("https://api.example.com/v2", Reach::Public).unwrap();
        let under = |path| base.under(path, Some("a=b")).map(|url| url.as_str().to_owned());
        assert_eq!(under("x/y").unwrap(), "https://api.example.com/v2/x/y?a=b");
        assert_eq!(under("").unwrap(), "https://api.example.com/v2/?a=b");
        assert_eq!(under("/evil.com").unwrap(), "https://api.example.com/v2//evil.com?a=b");
        assert_eq!(under("../admin"), None);
        assert_eq!(under("x/%2e%2e/../../admin"), None);
    }
}
