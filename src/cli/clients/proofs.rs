//! The arguments that say how a client proves who it is other than by a secret.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::cli::Failure;
use crate::oauth::registration::{Change, Registration, Workload};

/// Keys, a workload, tokens that are bound to keys.
#[derive(Debug, Args)]
pub(super) struct ProofArgs {
    /// A file with the public keys that it proves itself with (RFC 7523): a JWK set. With a workload, its issuer's.
    #[arg(long, value_name = "FILE", conflicts_with = "jwks_uri")]
    jwks_file: Option<PathBuf>,
    /// Where these keys are published: https, at a public address.
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// The issuer of the workload's tokens that it presents: a Kubernetes cluster, a CI service.
    #[arg(long, value_name = "URL", requires_all = ["workload_audience", "workload_subject"])]
    workload_issuer: Option<String>,
    /// Their only audience.
    #[arg(long, value_name = "TEXT", requires = "workload_issuer")]
    workload_audience: Option<String>,
    /// Their subject, exactly.
    #[arg(long, value_name = "TEXT", requires = "workload_issuer")]
    workload_subject: Option<String>,
}

impl ProofArgs {
    fn jwks(&self) -> Result<Option<Value>, Failure> {
        let Some(path) = &self.jwks_file else { return Ok(None) };
        let wrong =
            |what: &dyn std::fmt::Display| Failure::Usage(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        // The parser's message would repeat what stands there, which may be a private key.
        serde_json::from_str(&text).map(Some).map_err(|_| wrong(&"it is not JSON"))
    }

    fn workload(&self) -> Option<Workload> {
        Some(Workload {
            issuer: self.workload_issuer.clone()?,
            audience: self.workload_audience.clone()?,
            subject: self.workload_subject.clone()?,
        })
    }

    /// Returns what a new client is registered with.
    pub(super) fn registration(&self, dpop_bound: bool) -> Result<Registration, Failure> {
        let (jwks, jwks_uri, workload) = (self.jwks()?, self.jwks_uri.clone(), self.workload());
        Ok(Registration { jwks, jwks_uri, workload, dpop_bound })
    }

    fn change(&self) -> Result<Change, Failure> {
        Ok(Change {
            jwks: self.jwks()?.map(Some),
            jwks_uri: self.jwks_uri.clone().map(Some),
            workload: self.workload().map(Some),
            dpop_bound: None,
        })
    }
}

/// Change how a client proves who it is; what is left out stays. It holds within five seconds on every replica.
///
/// From a secret to keys without an outage: set the keys, let the client change, and end its secret by
/// DELETE /v1/admin/clients/{clientID}/secrets/{secretID}.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// The client's id.
    pub(super) client_id: String,
    #[command(flatten)]
    proofs: ProofArgs,
    /// Remove its keys.
    #[arg(long, conflicts_with_all = ["jwks_file", "jwks_uri"])]
    no_keys: bool,
    /// Remove its workload.
    #[arg(long, conflicts_with = "workload_issuer")]
    no_workload: bool,
    /// Whether it gets tokens that are bound to a key alone (DPoP).
    #[arg(long, value_name = "BOOL")]
    dpop_bound: Option<bool>,
}

impl Set {
    pub(super) fn change(&self) -> Result<Change, Failure> {
        let mut change = self.proofs.change()?;
        if self.no_keys {
            (change.jwks, change.jwks_uri) = (Some(None), Some(None));
        }
        if self.no_workload {
            change.workload = Some(None);
        }
        change.dpop_bound = self.dpop_bound;
        if change.is_empty() {
            return Err(Failure::Usage("nothing is to be changed; see --help".to_owned()));
        }
        Ok(change)
    }
}
