//! The caller's address: the peer's, or the one that trusted proxies report.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderName, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The networks of trusted proxies.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the proxies in these networks and no others.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Returns the caller's address: going back from this service, the first that is not a trusted
    /// proxy's. Each trusted hop vouches for the one before it.
    #[must_use]
    pub fn caller(&self, req: &HttpRequest) -> Option<IpAddr> {
        let mut caller = req.peer_addr()?.ip();
        let mut hops = if req.headers().contains_key(FORWARDED) {
            hops(req, &FORWARDED, forwarded_for)
        } else {
            hops(req, &X_FORWARDED_FOR, |hop| Some(hop))
        };
        while self.trusts(caller) {
            match hops.pop().flatten() {
                Some(hop) => caller = hop,
                None => break,
            }
        }
        Some(caller.to_canonical())
    }
}

/// Returns all hops that a header lists, the nearest last; one that is not an address is `None`.
fn hops(
    req: &HttpRequest,
    name: &HeaderName,
    node: impl Fn(&str) -> Option<&str>,
) -> Vec<Option<IpAddr>> {
    let values = req.headers().get_all(name).filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(','));
    items.map(|item| node(item.trim()).and_then(node_address)).collect()
}

/// Returns the `for` of one element of `Forwarded` (RFC 7239 §4).
fn forwarded_for(element: &str) -> Option<&str> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut names = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    names.next().map(|(_, node)| node.trim().trim_matches('"'))
}

/// Parses an address with or without port, IPv6 in brackets (RFC 7239 §6).
fn node_address(node: &str) -> Option<IpAddr> {
    if let Ok(address) = node.parse() {
        return Some(address);
    }
    if let Ok(socket) = node.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    node.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn caller(peer: &str, header: Option<(&str, &str)>) -> String {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut request = TestRequest::default().peer_addr(format!("{peer}:1").parse().unwrap());
        if let Some(header) = header {
            request = request.insert_header(header);
        }
        proxies.caller(&request.to_http_request()).unwrap().to_string()
    }

    #[test]
    fn a_stranger_cannot_claim_another_address() {
        assert_eq!(caller("192.0.2.1", Some(("X-Forwarded-For", "203.0.113.9"))), "192.0.2.1");
        assert_eq!(caller("192.0.2.1", Some(("Forwarded", "for=203.0.113.9"))), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_about_the_hop_before_it() {
        let chain = "198.51.100.7, 203.0.113.9, 10.0.0.2";
        assert_eq!(caller("10.0.0.1", Some(("X-Forwarded-For", chain))), "203.0.113.9");
        let forwarded = "for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.2";
        assert_eq!(caller("10.0.0.1", Some(("Forwarded", forwarded))), "2001:db8::1");
    }

    #[test]
    fn what_a_proxy_says_in_riddles_leaves_the_proxy_as_the_caller() {
        assert_eq!(caller("10.0.0.1", None), "10.0.0.1");
        assert_eq!(caller("10.0.0.1", Some(("Forwarded", "for=unknown"))), "10.0.0.1");
        assert_eq!(
            caller("10.0.0.1", Some(("X-Forwarded-For", "203.0.113.9, nonsense"))),
            "10.0.0.1"
        );
    }
}
