//! URLs of PostgreSQL, read as libpq reads them: several hosts and `target_session_attrs`. Parameters that
//! would have no effect are refused (PostgreSQL's documentation, 34.1.1.2 and 34.1.2).

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;
use url::form_urlencoded;

/// Which sessions a host must offer to be used (libpq's `target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAttrs {
    /// Any session.
    #[default]
    Any,
    /// The session accepts writes by default.
    ReadWrite,
    /// The server is not a standby.
    Primary,
}

/// A PostgreSQL URL. It usually contains a password, so `Debug` hides it.
#[derive(Clone)]
pub struct DatabaseUrl {
    hosts: Vec<PgConnectOptions>,
    attrs: SessionAttrs,
}

/// Why a URL was refused. Shows names of parameters, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlMistake {
    /// The text does not have the form of a PostgreSQL URL.
    #[error(
        "is not a URL of the form postgres://user:password@host/database (characters such as `/`, `@` and \
         `:` in a user or password are percent-encoded)"
    )]
    Form,
    /// The number of ports is neither one nor the number of hosts (libpq's rule).
    #[error("names {hosts} hosts and {ports} ports; give one port, or one for each host")]
    Ports {
        /// The number of hosts.
        hosts: usize,
        /// The number of ports.
        ports: usize,
    },
    /// A parameter that Strongroom does not support.
    #[error("the parameter `{0}` has no effect here; leave it out")]
    Parameter(String),
    /// A parameter whose value is not supported.
    #[error("the parameter `{0}` has a value that is not understood")]
    Value(String),
    /// `target_session_attrs` asks for a standby, which cannot serve.
    #[error(
        "target_session_attrs is `any`, `read-write` or `primary`: this service writes with every request"
    )]
    SessionAttrs,
}

/// The parameters that sqlx supports.
const KNOWN: [&str; 15] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl DatabaseUrl {
    /// Parses a PostgreSQL URL.
    ///
    /// # Errors
    /// Returns what is wrong, without repeating text that may be a password.
    pub fn parse(url: &str) -> Result<Self, UrlMistake> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or(UrlMistake::Form)?;
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = before.split_once('/').unwrap_or((before, ""));
        // A password with a bare slash would otherwise be shown as a host's port.
        if database.contains('@') || database.contains('/') || url.contains('#') {
            return Err(UrlMistake::Form);
        }
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut parts = Parts::new(hosts)?;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parts.take(&name, &value)?;
        }
        let hosts = parts.hosts()?;
        let options = |(host, port): (String, Option<u16>)| {
            let url = format!("postgres://{user}@localhost/{database}?{}", parts.known);
            let options = url.parse::<PgConnectOptions>().map_err(|_| UrlMistake::Form)?;
            Ok(at(options, &host, port, parts.named))
        };
        let hosts = hosts.into_iter().map(options).collect::<Result<Vec<_>, UrlMistake>>()?;
        if hosts.len() > 1 && parts.attrs == SessionAttrs::Any {
            tracing::warn!(
                "the database's URL names several hosts and no target_session_attrs: the first host that \
                 answers is used, a standby too"
            );
        }
        Ok(Self { hosts, attrs: parts.attrs })
    }

    /// Returns the connect options of each host, in the URL's order. Never empty.
    #[must_use]
    pub fn hosts(&self) -> &[PgConnectOptions] {
        &self.hosts
    }

    /// Returns which sessions a host must offer.
    #[must_use]
    pub fn session_attrs(&self) -> SessionAttrs {
        self.attrs
    }

    /// Returns the role that connects.
    #[must_use]
    pub fn role(&self) -> &str {
        self.hosts.first().map_or("", PgConnectOptions::get_username)
    }

    /// Returns the hosts and the database for people to read, without user and password.
    #[must_use]
    pub fn location(&self) -> String {
        let host = |options: &PgConnectOptions| match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        self.hosts.iter().map(host).collect::<Vec<_>>().join(", ")
    }
}

/// `PgConnectOptions` would print its password.
impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DatabaseUrl({})", self.location())
    }
}

fn at(
    mut options: PgConnectOptions,
    host: &str,
    port: Option<u16>,
    named: bool,
) -> PgConnectOptions {
    // Without a host, libpq and sqlx use PGHOST or a socket in the usual directories.
    if host.starts_with('/') {
        options = options.socket(host);
    } else if !host.is_empty() {
        options = options.host(host);
    }
    if let Some(port) = port {
        options = options.port(port);
    }
    if named { options } else { options.application_name("strongroom") }
}

/// The parts of a URL.
struct Parts {
    hosts: Vec<String>,
    ports: Vec<Option<u16>>,
    attrs: SessionAttrs,
    /// The query string of the parameters that sqlx supports.
    known: String,
    /// Whether the URL sets `application_name`.
    named: bool,
}

impl Parts {
    fn new(authority: &str) -> Result<Self, UrlMistake> {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for one in authority.split(',') {
            let (host, port) = split_port(one);
            let decoded = percent_decode_str(host).decode_utf8().map_err(|_| UrlMistake::Form)?;
            hosts.push(decoded.into_owned());
            ports.push(port_of(port)?);
        }
        let (attrs, known) = (SessionAttrs::Any, String::new());
        Ok(Self { hosts, ports, attrs, known, named: false })
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), UrlMistake> {
        let wrong = || UrlMistake::Value(name.to_owned());
        match name {
            "host" | "hostaddr" => self.hosts = value.split(',').map(str::to_owned).collect(),
            "port" => {
                let ports = value.split(',').map(port_of).collect::<Result<_, _>>();
                self.ports = ports.map_err(|_| wrong())?;
            }
            "target_session_attrs" => self.attrs = attrs(value)?,
            known if KNOWN.contains(&known) || known.starts_with("options[") => {
                self.named |= known == "application_name";
                let parameter = form_urlencoded::Serializer::new(String::new())
                    .append_pair(known, value)
                    .finish();
                let alone = format!("postgres://localhost/?{parameter}");
                alone.parse::<PgConnectOptions>().map_err(|_| wrong())?;
                self.known = format!("{}&{parameter}", self.known);
            }
            unknown => return Err(UrlMistake::Parameter(unknown.chars().take(40).collect())),
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<(String, Option<u16>)>, UrlMistake> {
        let (hosts, ports) = (self.hosts.len(), self.ports.len());
        if ports != 1 && ports != hosts {
            return Err(UrlMistake::Ports { hosts, ports });
        }
        let ports = self.ports.iter().copied().cycle();
        Ok(self.hosts.iter().cloned().zip(ports).collect())
    }
}

/// Splits off a port, but not within an IPv6 address (RFC 3986 §3.2.2).
fn split_port(host: &str) -> (&str, &str) {
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (address, port.trim_start_matches(':'));
    }
    host.split_once(':').unwrap_or((host, ""))
}

fn port_of(text: &str) -> Result<Option<u16>, UrlMistake> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| UrlMistake::Form)
}

fn attrs(value: &str) -> Result<SessionAttrs, UrlMistake> {
    match value {
        "any" => Ok(SessionAttrs::Any),
        "read-write" => Ok(SessionAttrs::ReadWrite),
        "primary" => Ok(SessionAttrs::Primary),
        _ => Err(UrlMistake::SessionAttrs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locations(url: &str) -> String {
        DatabaseUrl::parse(url).unwrap().location()
    }

    #[test]
    fn several_hosts_are_understood_as_libpq_understands_them() {
        assert_eq!(locations("postgres://u:p@a:1,b:2/db"), "a:1, b:2");
        assert_eq!(locations("postgres://a,b:6432/db"), "a:5432, b:6432");
        assert_eq!(locations("postgresql:///db?host=a,b&port=1,2"), "a:1, b:2");
        assert_eq!(locations("postgresql:///db?host=a,b&port=6"), "a:6, b:6");
        assert_eq!(locations("postgres://[::1]:7,b/db"), "::1:7, b:5432");
        assert_eq!(locations("postgres:///db?host=/run/postgresql"), "/run/postgresql");
        assert_eq!(locations("postgres://%2Frun%2Fpostgresql/db"), "/run/postgresql");
    }

    #[test]
    fn a_session_is_asked_to_be_what_the_url_says() {
        let attrs = |value: &str| {
            let url = format!("postgres://a/db?target_session_attrs={value}");
            DatabaseUrl::parse(&url).map(|url| url.session_attrs())
        };
        assert_eq!(attrs("read-write"), Ok(SessionAttrs::ReadWrite));
        assert_eq!(attrs("primary"), Ok(SessionAttrs::Primary));
        assert_eq!(attrs("any"), Ok(SessionAttrs::Any));
        for standby in ["standby", "read-only", "prefer-standby", "READ-WRITE", ""] {
            assert_eq!(attrs(standby), Err(UrlMistake::SessionAttrs), "{standby}");
        }
    }

    #[test]
    fn a_parameter_without_effect_is_refused_by_name() {
        for name in ["connect_timeout", "keepalives", "load_balance_hosts", "sslMode", "schema"] {
            let mistake = DatabaseUrl::parse(&format!("postgres://a/db?{name}=1")).unwrap_err();
            assert_eq!(mistake, UrlMistake::Parameter(name.to_owned()));
        }
        let wrong = DatabaseUrl::parse("postgres://a/db?sslmode=maybe").unwrap_err();
        assert_eq!(wrong, UrlMistake::Value("sslmode".to_owned()));
        assert!(DatabaseUrl::parse("postgres://a/db?options=-c%20a%3Db&sslmode=require").is_ok());
    }

    #[test]
    fn no_mistake_repeats_a_part_of_a_password() {
        for url in [
            "postgres://u:12/34@h/db",
            "postgres://u:canary@h:canary/db",
            "postgres://u:ca/nary@h",
            "canary",
            "postgres://u:p@a:1,b:2,c:canary/db",
        ] {
            let mistake = DatabaseUrl::parse(url).unwrap_err();
            let text = format!("{mistake} {mistake:?}");
            assert!(!text.contains("canary") && !text.contains("12"), "{url}: {text}");
        }
    }

    #[test]
    fn the_users_name_and_password_are_decoded() {
        let url = DatabaseUrl::parse("postgres://us%40er:p%2Fw@a,b/db?application_name=x").unwrap();
        assert_eq!(url.role(), "us@er");
        assert_eq!(url.hosts().len(), 2);
        assert_eq!(url.hosts()[1].get_application_name(), Some("x"));
    }
}
