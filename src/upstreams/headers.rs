//! Which headers a call through an upstream passes on, in each direction.

/// Headers about one connection rather than the message (RFC 9110 §7.6.1), and those that frame it.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Request headers that are meant for Strongroom, not for the upstream: credentials, the route by
/// which the request came, and what the HTTP client sets itself.
const FOR_STRONGROOM: [&str; 11] = [
    "authorization",
    "cookie",
    "cookie2",
    "dpop",
    "expect",
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "via",
    "x-real-ip",
];

/// Response headers that are meant for the upstream's own clients and browsers: cookies of another
/// site, policies for a host, and a challenge for credentials that the caller does not have.
const FOR_CLIENTS_OF_UPSTREAM: [&str; 10] = [
    "alt-svc",
    "clear-site-data",
    "content-security-policy",
    "public-key-pins",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "via",
    "www-authenticate",
    "x-request-id",
];

/// Returns the names that `Connection` headers list: those headers are about the connection too.
pub(super) fn connection_options<'a>(connection: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let texts = connection.filter_map(|value| std::str::from_utf8(value).ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Returns whether a request header is passed to the upstream. `name` is in lower case, as HTTP
/// libraries keep it.
pub(super) fn passes_to_upstream(name: &str, listed: &[String]) -> bool {
    let for_strongroom = name.starts_with("x-forwarded-") || FOR_STRONGROOM.contains(&name);
    is_end_to_end(name, listed) && !for_strongroom
}

/// Returns whether a response header is passed to the caller.
pub(super) fn passes_to_caller(name: &str, listed: &[String]) -> bool {
    let for_clients =
        name.starts_with("access-control-") || FOR_CLIENTS_OF_UPSTREAM.contains(&name);
    is_end_to_end(name, listed) && !for_clients
}

fn is_end_to_end(name: &str, listed: &[String]) -> bool {
    !HOP_BY_HOP.contains(&name) && !listed.iter().any(|other| other == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_lists_goes_no_further() {
        let listed = connection_options([b"close, X-Hop".as_slice(), b"\xff", b" ,"].into_iter());
        assert_eq!(listed, ["close", "x-hop"]);
        assert!(!passes_to_upstream("x-hop", &listed) && !passes_to_caller("x-hop", &listed));
        assert!(passes_to_upstream("x-other", &listed) && passes_to_caller("x-other", &listed));
    }

    #[test]
    fn credentials_stay_on_their_side() {
        for name in
            ["authorization", "cookie", "dpop", "proxy-authorization", "x-forwarded-for", "host"]
        {
            assert!(!passes_to_upstream(name, &[]), "{name}");
        }
        for name in
            ["set-cookie", "www-authenticate", "transfer-encoding", "access-control-allow-origin"]
        {
            assert!(!passes_to_caller(name, &[]), "{name}");
        }
        for name in ["content-type", "accept", "idempotency-key", "if-none-match"] {
            assert!(passes_to_upstream(name, &[]), "{name}");
        }
        for name in ["content-type", "content-encoding", "etag", "location", "retry-after"] {
            assert!(passes_to_caller(name, &[]), "{name}");
        }
    }
}
