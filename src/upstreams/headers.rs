//! Which headers pass through an upstream's call, in each direction.

/// Headers about one connection rather than the message (RFC 9110 §7.6.1), and what frames it.
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

/// What a caller sends to Strongroom and not to the upstream: credentials, the way by which it came, and
/// what the client sets itself.
const NOT_IN: [&str; 10] = [
    "authorization",
    "cookie",
    "cookie2",
    "expect",
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "via",
    "x-real-ip",
];

/// What an upstream says to its own clients and browsers and not to Strongroom's: cookies of another
/// site, policies for a host, and a challenge for credentials that the caller does not have.
const NOT_OUT: [&str; 10] = [
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

/// Names that `Connection` headers list: they are about that connection too.
pub(super) fn listed<'a>(connection: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let texts = connection.filter_map(|value| std::str::from_utf8(value).ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether a request's header goes on to the upstream. `name` is in lower case, as HTTP libraries
/// keep it.
pub(super) fn goes_in(name: &str, listed: &[String]) -> bool {
    let about_the_way = name.starts_with("x-forwarded-") || NOT_IN.contains(&name);
    is_end_to_end(name, listed) && !about_the_way
}

/// Whether an answer's header goes back to the caller.
pub(super) fn goes_out(name: &str, listed: &[String]) -> bool {
    let for_browsers = name.starts_with("access-control-") || NOT_OUT.contains(&name);
    is_end_to_end(name, listed) && !for_browsers
}

fn is_end_to_end(name: &str, listed: &[String]) -> bool {
    !HOP_BY_HOP.contains(&name) && !listed.iter().any(|other| other == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_lists_goes_no_further() {
        let listed = listed([b"close, X-Hop".as_slice(), b"\xff", b" ,"].into_iter());
        assert_eq!(listed, ["close", "x-hop"]);
        assert!(!goes_in("x-hop", &listed) && !goes_out("x-hop", &listed));
        assert!(goes_in("x-other", &listed) && goes_out("x-other", &listed));
    }

    #[test]
    fn credentials_stay_on_their_side() {
        for name in ["authorization", "cookie", "proxy-authorization", "x-forwarded-for", "host"] {
            assert!(!goes_in(name, &[]), "{name}");
        }
        for name in
            ["set-cookie", "www-authenticate", "transfer-encoding", "access-control-allow-origin"]
        {
            assert!(!goes_out(name, &[]), "{name}");
        }
        for name in ["content-type", "accept", "idempotency-key", "if-none-match"] {
            assert!(goes_in(name, &[]), "{name}");
        }
        for name in ["content-type", "content-encoding", "etag", "location", "retry-after"] {
            assert!(goes_out(name, &[]), "{name}");
        }
    }
}
