//! Challenges: random, bound to a session or a browser, good once and for five minutes.
//!
//! A challenge carries its time and a keyed hash, so that asking for one writes nothing: who is not signed in cannot fill
//! a table. The row that makes it good only once is written when it has been answered soundly.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use super::PasskeyError;
use super::model::Refused;
use crate::common::ids::OperatorSessionId;
use crate::database::Conn;
use crate::vault::{self, KeyedHash, Vault, VaultError};

/// How long a challenge can be answered, in minutes.
pub const CHALLENGE_MINUTES: i64 = 5;
const PREFIX: &str = "chal_";

/// What a challenge is for: one that was made for another purpose does not verify.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Enrolling a passkey in this session.
    Enrol(OperatorSessionId),
    /// Signing in, in the browser that holds this text in a cookie.
    SignIn(String),
    /// Signing in by an OpenID provider, in the browser that holds this text in a cookie.
    Oidc(String),
}

impl Purpose {
    fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Enrol(session) => ("enrol", session.to_string()),
            Self::SignIn(browser) => ("sign in", browser.clone()),
            Self::Oidc(browser) => ("oidc", browser.clone()),
        }
    }
}

/// A challenge, in base64url without padding.
#[derive(Debug)]
pub struct Challenge(pub String);

fn mac(vault: &Vault, purpose: &Purpose, random: &str, micros: i64) -> KeyedHash {
    let (kind, binding) = purpose.parts();
    vault.secret_hashes().hash(&[
        b"operator challenge",
        kind.as_bytes(),
        binding.as_bytes(),
        random.as_bytes(),
        &micros.to_be_bytes(),
    ])
}

async fn now_micros(conn: &mut Conn) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT (extract(epoch FROM strongroom_now()) * 1000000)::bigint AS "it!""#
    )
    .fetch_one(conn)
    .await
}

/// Creates a challenge.
///
/// # Errors
/// The database's, and that of random numbers.
pub async fn begin(
    conn: &mut Conn,
    vault: &Vault,
    purpose: &Purpose,
) -> Result<Challenge, VaultError> {
    let (random, micros) = (vault::random_token(PREFIX)?, now_micros(conn).await?);
    let random = random.expose();
    let mac = mac(vault, purpose, random, micros);
    let text = format!("{random}.{micros}.{}", URL_SAFE_NO_PAD.encode(mac.as_bytes()));
    Ok(Challenge(URL_SAFE_NO_PAD.encode(text)))
}

/// Uses a challenge up, in the transaction that `conn` is in.
///
/// # Errors
/// [`Refused::Challenge`] and the database's.
pub async fn consume(
    conn: &mut Conn,
    vault: &Vault,
    purpose: &Purpose,
    challenge: &[u8],
) -> Result<(), PasskeyError> {
    let (random, micros, given) = parse(challenge).ok_or(Refused::Challenge)?;
    let expected = mac(vault, purpose, random, micros);
    if !bool::from(given.ct_eq(expected.as_bytes())) {
        return Err(Refused::Challenge.into());
    }
    let age = now_micros(conn).await?.saturating_sub(micros);
    if age > CHALLENGE_MINUTES * 60 * 1_000_000 {
        return Err(Refused::Challenge.into());
    }
    let first = sqlx::query!(
        "INSERT INTO operator_challenges (hash) VALUES ($1) ON CONFLICT DO NOTHING",
        expected.as_bytes(),
    )
    .execute(&mut *conn)
    .await?;
    if first.rows_affected() == 0 {
        return Err(Refused::Challenge.into());
    }
    sqlx::query!(
        "DELETE FROM operator_challenges
         WHERE used_at < (SELECT strongroom_now()) - interval '15 minutes'"
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn parse(challenge: &[u8]) -> Option<(&str, i64, Vec<u8>)> {
    let mut parts = std::str::from_utf8(challenge).ok()?.split('.');
    let (random, micros, mac) = (parts.next()?, parts.next()?, parts.next()?);
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    parts.next().is_none().then_some((random, micros.parse().ok()?, mac))
}
