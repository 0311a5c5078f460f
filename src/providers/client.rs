//! The verbs: each calls the app's provider and returns what its answer means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::transport::{Link, Transport};
use super::{
    AccessToken, AppCredentials, Call, CallAnswer, CallLost, Exchange, ExchangeAnswer, Gate,
    Metrics, Permit, Provider, Revoke, RevokeAnswer, Said, Verify, VerifyAnswer, dapi, plaid,
};
use crate::common::trace::TraceContext;
use crate::config::{ProviderConfig, ProvidersConfig};
use crate::providers::plaid::{DetailsError, ItemDetails, KeyAnswer};

/// Reads an answer to a call; returns `None` if the body is not one complete JSON object.
#[must_use]
pub fn said(provider: Provider, status: u16, body: &[u8]) -> Option<Said> {
    match provider {
        Provider::Dapi => dapi::said(body),
        Provider::Plaid => plaid::said(status, body),
    }
}

/// Calls the providers. Clones share connections and limits.
#[derive(Clone, Debug)]
pub struct Client {
    dapi: Arc<Transport>,
    plaid: Arc<Transport>,
    settings: Arc<ProvidersConfig>,
    gate: Gate,
    metrics: Metrics,
}

impl Client {
    /// Creates a client with its own connections.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up, for example because there are no root certificates.
    pub fn new(
        settings: Arc<ProvidersConfig>,
        gate: Gate,
        metrics: Metrics,
    ) -> reqwest::Result<Self> {
        let dapi = Arc::new(Transport::new(&settings.dapi)?);
        let plaid = Arc::new(Transport::new(&settings.plaid)?);
        Ok(Self { dapi, plaid, settings, gate, metrics })
    }

    /// Returns the gate that every call passes.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns the settings about a provider.
    #[must_use]
    pub fn settings(&self, provider: Provider) -> &ProviderConfig {
        match provider {
            Provider::Dapi => &self.settings.dapi,
            Provider::Plaid => &self.settings.plaid,
        }
    }

    fn link<'a>(&'a self, permit: &'a Permit, provider: Provider) -> Link<'a> {
        let transport = match provider {
            Provider::Dapi => &self.dapi,
            Provider::Plaid => &self.plaid,
        };
        Link { transport, settings: self.settings(provider), permit }
    }

    /// Exchanges a code for a token.
    ///
    /// Repeats attempts that provably sent nothing, at once and a few times; repeats nothing else.
    pub async fn exchange(&self, permit: &Permit, exchange: &Exchange<'_>) -> ExchangeAnswer {
        let (started, provider) = (Instant::now(), exchange.app.provider);
        let link = self.link(permit, provider);
        let answer = match provider {
            Provider::Dapi => dapi::exchange(link, exchange).await,
            Provider::Plaid => plaid::exchange(link, exchange).await,
        };
        self.metrics.count(provider, "exchange", answer.label(), started.elapsed());
        answer
    }

    /// Revokes a token: Dapi's delinking, Plaid's `/item/remove`.
    pub async fn revoke(&self, permit: &Permit, revoke: &Revoke<'_>) -> RevokeAnswer {
        let (started, provider) = (Instant::now(), revoke.app.provider);
        let link = self.link(permit, provider);
        let answer = match provider {
            Provider::Dapi => dapi::delink(link, &self.settings.delink_path, revoke).await,
            Provider::Plaid => plaid::remove(link, revoke).await,
        };
        self.metrics.count(provider, "delink", answer.label(), started.elapsed());
        answer
    }

    /// Reads an item's institution and accounts. `proven` as in [`Revoke`].
    ///
    /// # Errors
    /// If Plaid refuses or does not answer.
    pub async fn item_details(
        &self,
        permit: &Permit,
        app: &AppCredentials,
        token: &AccessToken,
        proven: bool,
        trace: &TraceContext,
    ) -> Result<ItemDetails, DetailsError> {
        let started = Instant::now();
        let link = self.link(permit, Provider::Plaid);
        let details = plaid::details(link, app, token, trace).await;
        let outcome = details.as_ref().map_or_else(DetailsError::outcome, |_| "answered");
        self.count_call(Provider::Plaid, outcome, started.elapsed());
        details.map_err(|error| {
            let is_dead =
                |kind: &str| self.reports_dead_token(Provider::Plaid, kind, token, proven);
            DetailsError { dead: error.kind.as_deref().is_some_and(is_dead), ..error }
        })
    }

    /// Replaces a token by another of the same item, which exists once, as an exchange's does.
    pub async fn replace_token(
        &self,
        permit: &Permit,
        app: &AppCredentials,
        token: &AccessToken,
        trace: &TraceContext,
    ) -> ExchangeAnswer {
        let started = Instant::now();
        let link = self.link(permit, Provider::Plaid);
        let answer = plaid::invalidate(link, app, token, trace).await;
        self.metrics.count(Provider::Plaid, "exchange", answer.label(), started.elapsed());
        answer
    }

    /// Looks up a key with which Plaid signs its webhooks.
    pub async fn webhook_key(
        &self,
        permit: &Permit,
        app: &AppCredentials,
        key_id: &str,
        trace: &TraceContext,
    ) -> KeyAnswer {
        let started = Instant::now();
        let link = self.link(permit, Provider::Plaid);
        let answer = plaid::webhook_key(link, app, key_id, trace).await;
        let unanswered = matches!(answer, KeyAnswer::Unanswered(_));
        let outcome = if unanswered { "unreachable" } else { "answered" };
        self.count_call(Provider::Plaid, outcome, started.elapsed());
        answer
    }

    /// Makes a call on a connection's behalf and returns before the body arrives. The call's limit covers all of it,
    /// to the body's last byte.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call(&self, permit: &Permit, call: &Call<'_>) -> Result<CallAnswer, CallLost> {
        let provider = call.app.provider;
        let link = self.link(permit, provider);
        match provider {
            Provider::Dapi => dapi::call(link, call).await,
            Provider::Plaid => plaid::call(link, call).await,
        }
    }

    /// Verifies a token by one call that asks the user for nothing. Returns the HTTP status too, if there was one.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn verify(
        &self,
        permit: &Permit,
        verify: &Verify<'_>,
    ) -> Result<(VerifyAnswer, u16), CallLost> {
        let provider = verify.app.provider;
        let call = Call {
            app: verify.app,
            path: self.verification_path(provider),
            fields: &[],
            token: Some(verify.token),
            user_secret: verify.user_secret,
            with_app_key: false,
            trace: verify.trace,
            limit: self.settings(provider).call_timeout,
        };
        let mut answer = self.call(permit, &call).await?;
        let body = answer.read_whole().await?;
        let status = answer.status().as_u16();
        let verdict = match provider {
            Provider::Dapi => dapi::verified(status, &body, verify),
            Provider::Plaid => plaid::verified(status, &body, verify),
        };
        let verdict = match verdict {
            VerifyAnswer::Refused(refusal) if self.needs_attention(provider, &refusal.kind) => {
                VerifyAnswer::Works(Some(refusal.kind))
            }
            verdict => verdict,
        };
        Ok((verdict, status))
    }

    /// Returns the path of the call that verifies a token.
    #[must_use]
    pub const fn verification_path(&self, provider: Provider) -> &'static str {
        match provider {
            Provider::Dapi => dapi::VERIFICATION_PATH,
            Provider::Plaid => plaid::VERIFICATION_PATH,
        }
    }

    /// Returns whether a refusal of this kind says that no call should be made until the user links the login again.
    #[must_use]
    pub fn needs_attention(&self, provider: Provider, kind: &str) -> bool {
        self.settings(provider).attention_types.iter().any(|known| known == kind)
    }

    /// Returns whether a refusal of this kind, in answer to a call with this token, says that the token is dead.
    /// `proven` as in [`Revoke`].
    #[must_use]
    pub fn reports_dead_token(
        &self,
        provider: Provider,
        kind: &str,
        token: &AccessToken,
        proven: bool,
    ) -> bool {
        let settings = self.settings(provider);
        settings.dead_types.iter().any(|dead| dead == kind)
            && match provider {
                Provider::Dapi => proven,
                Provider::Plaid => plaid::is_certain(settings, kind, token, proven),
            }
    }

    /// Returns whether a refusal of this kind leaves open if the token is dead or was never right: one that means a dead
    /// token, in answer to an imported token that has not worked yet (not `proven`). Of a provider with a user secret,
    /// that decides.
    #[must_use]
    pub fn doubts_token(&self, provider: Provider, kind: &str, proven: bool) -> bool {
        let settings = self.settings(provider);
        !provider.has_user_secret()
            && !proven
            && settings.dead_types.iter().any(|dead| dead == kind)
    }

    /// Counts a relayed call.
    pub fn count_call(&self, provider: Provider, outcome: &'static str, took: Duration) {
        self.metrics.count(provider, "call", outcome, took);
    }
}
