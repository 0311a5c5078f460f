//! `strongroom keys signing`.

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::identity::acting;
use crate::cli::Failure;
use crate::cli::output::{Output, table};
use crate::cli::session::Session;
use crate::common::algorithm::Algorithm;
use crate::config::{Environment, OauthConfig, Reader};
use crate::oauth::signing_keys::{self, Begin, KeyInfo};

/// Keys that sign access tokens.
///
/// They rotate by themselves (`STRONGROOM_SIGNING_KEY_LIFETIME`): a new key is published for ten minutes
/// before it signs, an old one verifies until its last token has ended.
#[derive(Debug, Args)]
pub(super) struct Signing {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Rotate(Rotate),
    Revoke(Revoke),
}

/// List the keys with what each does: it comes next, signs, or only verifies.
#[derive(Debug, Args)]
struct List {}

/// Make the next key. It is published now and signs in ten minutes, when all who cache the key set
/// have read it.
///
/// Where the present key may be in wrong hands: --now, and when the new one signs, `strongroom keys
/// signing revoke OLD`.
#[derive(Debug, Args)]
struct Rotate {
    /// Sign in ten seconds: as soon as every replica knows the key.
    #[arg(long)]
    now: bool,
    /// ES256, RS256 or `EdDSA`; `STRONGROOM_SIGNING_ALGORITHM` where it is left out.
    #[arg(long, value_parser = algorithm)]
    algorithm: Option<Algorithm>,
}

/// Delete a key that signs no more: the tokens that it signed end within five seconds on every
/// replica. Their clients get new ones.
#[derive(Debug, Args)]
struct Revoke {
    /// The key's id.
    // One in sixty-four starts with a hyphen.
    #[arg(allow_hyphen_values = true)]
    kid: String,
}

fn algorithm(text: &str) -> Result<Algorithm, &'static str> {
    Algorithm::parse(text).ok_or("must be ES256, RS256 or EdDSA")
}

impl Signing {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        match self.command {
            Command::List(_) => list(environment, output).await,
            Command::Rotate(rotate) => rotate.run(environment, output).await,
            Command::Revoke(revoke) => revoke.run(environment, output).await,
        }
    }
}

fn moment(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_default()
}

async fn list(environment: &Environment, output: &Output) -> Result<(), Failure> {
    let mut session = Session::open(environment).await?;
    let keys = signing_keys::list(&mut session.conn).await?;
    output.result(&keys, || {
        if keys.is_empty() {
            return "There is no key yet; `strongroom serve` makes one.".to_owned();
        }
        let row = |key: &KeyInfo| {
            let retired = key.retired_at.map_or(String::new(), moment);
            let signs_from = moment(key.signs_from);
            [key.kid.clone(), key.algorithm.clone(), key.state.clone(), signs_from, retired]
        };
        let rows: Vec<_> = keys.iter().map(row).collect();
        table(["KID", "ALGORITHM", "STATE", "SIGNS FROM", "UNTIL"], &rows)
    });
    Ok(())
}

impl Rotate {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let config = OauthConfig::read(&mut reader);
        let config = reader.finish(Some(config))?;
        let algorithm = self.algorithm.unwrap_or(config.signing_algorithm);
        let begin = if self.now { Begin::AtOnce } else { Begin::Ahead };
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        let operator = acting();
        let new = signing_keys::rotate(&mut conn, &vault, &operator, algorithm, begin).await?;
        output.result(&new, || {
            format!(
                "`{}` ({}) is published and signs from {}.",
                new.kid,
                new.algorithm,
                moment(new.signs_from)
            )
        });
        Ok(())
    }
}

impl Revoke {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let kid = &self.kid;
        if !signing_keys::revoke(&mut session.conn, &acting(), kid).await? {
            let message = format!(
                "no key `{kid}` is retired; `strongroom keys signing list` shows them, and the one \
                 that signs needs a successor first: `strongroom keys signing rotate --now`"
            );
            return Err(Failure::Usage(message));
        }
        output.result(&json!({ "kid": kid, "revoked": true }), || {
            format!("`{kid}` and the tokens that it signed count no more, within seconds.")
        });
        Ok(())
    }
}
