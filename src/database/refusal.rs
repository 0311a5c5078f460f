//! Refusals: why no connection will be accepted until somebody changes a setting or the server. Waiting does not help, as
//! it does against an outage.

use super::Fault;

/// What has to be changed before a connection is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The password.
    Password,
    /// The role, or the rules by which the server admits it.
    Role,
    /// The name of the database.
    Database,
    /// The role's privileges on the database.
    Privilege,
    /// How TLS is used, or its certificates.
    Tls,
    /// The name of the host.
    Host,
    /// Something else that does not pass by itself.
    Other,
}

impl Refusal {
    /// Classifies an error of connecting (SQLSTATEs: PostgreSQL's documentation, appendix A). `None` if it may pass.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Database(error) => {
                error.code().map_or(Some(Self::Other), |code| Self::of_sqlstate(&code))
            }
            sqlx::Error::Tls(_) => Some(Self::Tls),
            sqlx::Error::Configuration(_) => Some(Self::Other),
            sqlx::Error::Io(error) => Self::of_io(error),
            _ => None,
        }
    }

    fn of_sqlstate(code: &str) -> Option<Self> {
        match code {
            "28P01" => Some(Self::Password),
            code if code.starts_with("28") => Some(Self::Role),
            "3D000" => Some(Self::Database),
            "42501" => Some(Self::Privilege),
            code => (Fault::of_sqlstate(code) == Fault::Defect).then_some(Self::Other),
        }
    }

    fn of_io(error: &std::io::Error) -> Option<Self> {
        // rustls reports a certificate that it does not accept in this way.
        if error.kind() == std::io::ErrorKind::InvalidData {
            return Some(Self::Tls);
        }
        // The standard library gives no code for what getaddrinfo said. These texts of glibc and musl mean EAI_AGAIN: the
        // name server did not answer.
        let text = error.to_string();
        let may_pass = ["Temporary failure in name resolution", "Try again"];
        let is_lookup = text.starts_with("failed to lookup address information");
        (is_lookup && !may_pass.iter().any(|again| text.ends_with(again))).then_some(Self::Host)
    }

    /// Says what to look at.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Password => "The password is wrong, or the role has none.",
            Self::Role => {
                "The role does not exist, may not log in, or is not admitted from here by pg_hba.conf."
            }
            Self::Database => "There is no database of this name; `createdb` makes one.",
            Self::Privilege => "The role lacks the privilege CONNECT on the database.",
            Self::Tls => "`sslmode` and `sslrootcert` in the URL say how TLS is used.",
            Self::Host => "No host has this name.",
            Self::Other => "This does not pass by itself.",
        }
    }
}

/// Chooses between the errors of two hosts: the one that may pass, if there is one, and the later one of two alike.
#[must_use]
pub fn more_hopeful(earlier: Option<sqlx::Error>, later: sqlx::Error) -> sqlx::Error {
    match earlier {
        Some(earlier) if Refusal::of(&earlier).is_none() && Refusal::of(&later).is_some() => {
            earlier
        }
        _ => later,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn what_an_operator_has_to_change_is_told_from_what_passes() {
        for (code, expected) in [
            ("28P01", Some(Refusal::Password)),
            ("28000", Some(Refusal::Role)),
            ("3D000", Some(Refusal::Database)),
            ("42501", Some(Refusal::Privilege)),
            ("42704", Some(Refusal::Other)),
            ("57P03", None),
            ("53300", None),
            ("08006", None),
            ("57014", None),
        ] {
            assert_eq!(Refusal::of_sqlstate(code), expected, "{code}");
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_from_a_name_server_that_does_not_answer() {
        let lookup = |what: &str| {
            let text = format!("failed to lookup address information: {what}");
            Refusal::of(&sqlx::Error::Io(Error::other(text)))
        };
        assert_eq!(lookup("Name or service not known"), Some(Refusal::Host));
        assert_eq!(lookup("Name does not resolve"), Some(Refusal::Host));
        assert_eq!(lookup("Temporary failure in name resolution"), None);
        assert_eq!(lookup("Try again"), None);
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::TimedOut, ErrorKind::NotFound] {
            assert_eq!(Refusal::of(&sqlx::Error::Io(kind.into())), None, "{kind}");
        }
    }

    #[test]
    fn of_several_hosts_the_one_that_may_yet_accept_counts() {
        let down = || sqlx::Error::Io(ErrorKind::ConnectionRefused.into());
        let refusing = || sqlx::Error::Tls("no".into());
        for (earlier, later) in [(down(), refusing()), (refusing(), down())] {
            assert_eq!(Refusal::of(&more_hopeful(Some(earlier), later)), None);
        }
        let both = more_hopeful(Some(refusing()), refusing());
        assert_eq!(Refusal::of(&both), Some(Refusal::Tls));
    }
}
