//! Restricts the demo to its own page, under its own host name.
//!
//! May import: actix, problem.

use std::net::SocketAddr;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, LOCATION};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};

use super::Demo;
use super::problem::Failed;

pub(super) struct Host {
    /// Its one origin, as browsers write it (RFC 6454 §6.2).
    pub(super) origin: String,
    /// The host and port of that origin.
    authority: String,
    /// Another host name that people type.
    alias: String,
}

impl Host {
    pub(super) fn of(address: SocketAddr) -> Self {
        // Browsers omit the default port.
        let name = |host: String| match address.port() {
            80 => host,
            port => format!("{host}:{port}"),
        };
        let host = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        let (authority, alias) = (name(host), name("localhost".to_owned()));
        Self { origin: format!("http://{authority}"), authority, alias }
    }
}

fn text<'a>(req: &'a ServiceRequest, name: &HeaderName) -> Option<&'a str> {
    req.headers().get(name).map(|value| value.to_str().unwrap_or("(unreadable)"))
}

/// Refuses requests with another `Host`, as DNS rebinding causes them, and unsafe requests that do not come
/// from the demo's own page (cross-site request forgery).
pub(super) async fn guard(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let refused = match req.app_data::<web::Data<Demo>>() {
        Some(demo) => refusal(&req, &demo.host),
        None => Err(Failed::ForeignHost),
    };
    match refused {
        Ok(None) => next.call(req).await.map(ServiceResponse::map_into_left_body),
        Ok(Some(elsewhere)) => Ok(req.into_response(elsewhere).map_into_right_body()),
        Err(failed) => Ok(req.error_response(failed).map_into_right_body()),
    }
}

fn refusal(req: &ServiceRequest, host: &Host) -> Result<Option<HttpResponse>, Failed> {
    let safe = req.method().is_safe();
    let named = text(req, &header::HOST).unwrap_or_default();
    if named.eq_ignore_ascii_case(&host.alias) && named != host.authority && safe {
        let mut elsewhere = HttpResponse::TemporaryRedirect();
        return Ok(Some(elsewhere.insert_header((LOCATION, format!("{}/", host.origin))).finish()));
    }
    if !named.eq_ignore_ascii_case(&host.authority) {
        return Err(Failed::ForeignHost);
    }
    match text(req, &header::ORIGIN) {
        Some(origin) if origin == host.origin => Ok(None),
        None if safe => Ok(None),
        _ => Err(Failed::ForeignOrigin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_written_as_a_browser_writes_it() {
        let origin = |address: &str| Host::of(address.parse().unwrap()).origin;
        assert_eq!(origin("127.0.0.1:8000"), "http://127.0.0.1:8000");
        assert_eq!(origin("127.0.0.1:80"), "http://127.0.0.1");
        assert_eq!(origin("[::1]:8000"), "http://[::1]:8000");
    }
}
