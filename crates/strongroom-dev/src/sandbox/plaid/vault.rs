//! All items, tokens and link tokens of Plaid's side, and their rules.
//!
//! No I/O; only digests of secrets are kept. Each kind is bounded: beyond the capacity the oldest is evicted, which
//! to a caller looks like one that never existed.
//!
//! May import: answer, bounded, institution, item, link, mint, settings, `single_use`.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::answer::{Refusal, login_required, reason};
use super::institution::{Account, Institution};
use super::item::{Item, ItemState, PublicToken, Token};
use super::link::LinkToken;
use crate::sandbox::bounded::{Bounded, locked};
use crate::sandbox::mint::{self, Digest, Mint};
use crate::sandbox::settings::{App, RemovedItem, Rules};
use crate::sandbox::single_use::{SingleUse, Spent, Turn};

/// The environment in every token.
pub(super) const ENVIRONMENT: &str = "sandbox";

/// What a user does in Link.
pub(super) struct LinkRequest {
    pub(super) app: Arc<App>,
    pub(super) client_user_id: Option<String>,
    pub(super) institution: &'static Institution,
    pub(super) seed: String,
    pub(super) accounts: Vec<Account>,
    pub(super) products: Vec<String>,
    pub(super) webhook: Option<String>,
    pub(super) lifetime: Duration,
}

/// What Link gives to a frontend.
pub(super) struct Linked {
    pub(super) public_token: String,
    pub(super) id: Uuid,
    pub(super) item: Arc<Item>,
}

pub(super) struct Vault {
    pub(super) mint: Mint,
    apps: Vec<Arc<App>>,
    items: Mutex<Bounded<String, Arc<Item>>>,
    public_tokens: Mutex<Bounded<Digest, Arc<PublicToken>>>,
    tokens: Mutex<Bounded<Digest, Arc<Token>>>,
    pub(super) link_tokens: Mutex<Bounded<Digest, Arc<LinkToken>>>,
}

impl Vault {
    pub(super) fn new(apps: Vec<App>, capacity: usize) -> Self {
        Self {
            mint: Mint::new(),
            apps: apps.into_iter().map(Arc::new).collect(),
            items: Mutex::new(Bounded::new(capacity)),
            public_tokens: Mutex::new(Bounded::new(capacity)),
            tokens: Mutex::new(Bounded::new(capacity)),
            link_tokens: Mutex::new(Bounded::new(capacity)),
        }
    }

    /// Returns the app with this client id; the first one if none is given.
    pub(super) fn app(&self, client_id: Option<&str>) -> Option<&Arc<App>> {
        match client_id {
            Some(id) => self.apps.iter().find(|app| app.key == id),
            None => self.apps.first(),
        }
    }

    pub(super) fn authenticate(&self, client_id: &str, secret: &str) -> Result<&Arc<App>, Refusal> {
        self.app(Some(client_id))
            .filter(|app| app.secret.expose() == secret)
            .ok_or_else(|| reason::INVALID_API_KEYS.because("invalid client_id or secret provided"))
    }

    pub(super) fn item(&self, id: &str) -> Option<Arc<Item>> {
        locked(&self.items).get(id).cloned()
    }

    pub(super) fn newest_items(&self, limit: usize) -> Vec<Arc<Item>> {
        locked(&self.items).newest().take(limit).cloned().collect()
    }

    pub(super) fn newest_tokens(&self, limit: usize) -> Vec<Arc<Token>> {
        locked(&self.tokens).newest().take(limit).cloned().collect()
    }

    /// Creates an item and its public token: a user went through Link.
    pub(super) fn link(&self, request: LinkRequest, now: OffsetDateTime) -> Linked {
        let id = self.mint.plaid_id();
        let accounts = request.accounts.into_iter();
        let item = Arc::new(Item {
            id: id.clone(),
            app: request.app,
            client_user_id: request.client_user_id,
            institution: request.institution,
            accounts: accounts.map(|account| (self.mint.plaid_id(), account)).collect(),
            seed: request.seed,
            products: request.products,
            created_at: now,
            state: Mutex::new(ItemState { webhook: request.webhook, ..ItemState::default() }),
            tokens: Mutex::default(),
        });
        locked(&self.items).insert(id, Arc::clone(&item));
        self.public_token(item, false, request.lifetime, now)
    }

    /// Issues a public token of an item.
    pub(super) fn public_token(
        &self,
        item: Arc<Item>,
        update: bool,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Linked {
        let id = self.mint.uuid();
        let public_token = format!("public-{ENVIRONMENT}-{}", self.mint.uuid());
        let once = SingleUse::until(now.saturating_add(lifetime));
        let issued = PublicToken { id, item: Arc::clone(&item), update, once };
        locked(&self.public_tokens).insert(mint::digest_of(&public_token), Arc::new(issued));
        Linked { public_token, id, item }
    }

    /// Returns the id and the item of a public token, also of a used or expired one.
    pub(super) fn public_token_of(&self, text: &str) -> Option<Arc<PublicToken>> {
        locked(&self.public_tokens).get(&mint::digest_of(text)).cloned()
    }

    pub(super) fn exchange(
        &self,
        app: &Arc<App>,
        public_token: &str,
        rules: &Rules,
        now: OffsetDateTime,
    ) -> Result<Arc<Token>, Refusal> {
        let prefix = format!("public-{ENVIRONMENT}-");
        if !public_token.starts_with(&prefix) {
            let message = format!(
                "provided public token is in an invalid format. expected format: {prefix}<identifier>"
            );
            return Err(reason::INVALID_PUBLIC_TOKEN.because(message));
        }
        let known = self.public_token_of(public_token);
        let known = known.filter(|known| Arc::ptr_eq(&known.item.app, app));
        let known = known.filter(|known| !known.item.state().removed).ok_or_else(|| {
            reason::INVALID_PUBLIC_TOKEN.because("could not find matching public token")
        })?;
        let issued = known.once.exchange(rules.second_exchange, now, |turn| {
            let present = known.item.living_tokens().pop().filter(|_| known.update);
            present.unwrap_or_else(|| {
                let id = if turn == Turn::First { known.id } else { self.mint.uuid() };
                self.issue(id, &known.item, now)
            })
        });
        issued.map_err(|spent| match spent {
            Spent::Expired => reason::INVALID_PUBLIC_TOKEN.because(
                "provided public token is expired. Public tokens expire 30 minutes after creation at which point they can no longer be exchanged",
            ),
            Spent::Used => reason::INVALID_PUBLIC_TOKEN
                .because("provided public token has already been exchanged"),
        })
    }

    fn issue(&self, id: Uuid, item: &Arc<Item>, now: OffsetDateTime) -> Arc<Token> {
        let token = Token::new(id, item, now);
        let digest = mint::digest_of(&self.text_of(id));
        locked(&self.tokens).insert(digest, Arc::clone(&token));
        token
    }

    /// Returns the text of the access token with this id.
    pub(super) fn text_of(&self, id: Uuid) -> String {
        format!("access-{ENVIRONMENT}-{}", self.mint.uuid_of(id))
    }

    /// Returns the presented access token, dead or alive.
    pub(super) fn token(&self, access_token: &str) -> Option<Arc<Token>> {
        locked(&self.tokens).get(&mint::digest_of(access_token)).cloned()
    }

    /// Returns the access token of a call if it belongs to the app and lives.
    pub(super) fn admit(
        &self,
        app: &Arc<App>,
        access_token: &str,
        rules: &Rules,
    ) -> Result<Arc<Token>, Refusal> {
        check_form(access_token)?;
        let unknown =
            || reason::INVALID_ACCESS_TOKEN.because("could not find matching access token");
        let token = self.token(access_token).ok_or_else(unknown)?;
        if !Arc::ptr_eq(&token.item.app, app) {
            return Err(unknown());
        }
        match died_of(&token, rules) {
            None => Ok(token),
            Some(code) if code == "INVALID_ACCESS_TOKEN" => Err(unknown()),
            Some(code) if code == "ITEM_NOT_FOUND" => Err(reason::ITEM_NOT_FOUND.because(
                "The Item you requested cannot be found. This Item does not exist, has been previously removed via /item/remove, or has had access removed by the user.",
            )),
            Some(code) => Err(Refusal::named(&code, 400, "ended on demand".to_owned())),
        }
    }

    /// Replaces an access token; of two calls at once one does.
    pub(super) fn invalidate(
        &self,
        token: &Arc<Token>,
        now: OffsetDateTime,
    ) -> Result<Arc<Token>, Refusal> {
        if !token.kill(Cow::Borrowed("INVALID_ACCESS_TOKEN")) {
            return Err(
                reason::INVALID_ACCESS_TOKEN.because("could not find matching access token")
            );
        }
        Ok(self.issue(self.mint.uuid(), &token.item, now))
    }
}

/// Refuses a text that is not an access token of this environment.
fn check_form(access_token: &str) -> Result<(), Refusal> {
    let environment = access_token
        .strip_prefix("access-")
        .and_then(|rest| rest.split_once('-'))
        .map(|(environment, _)| environment);
    let message = match environment {
        Some(ENVIRONMENT) => return Ok(()),
        Some(other @ ("development" | "production")) => format!(
            "provided access token is for the wrong Plaid environment. expected \"{ENVIRONMENT}\", got \"{other}\""
        ),
        _ => "provided access token is in an invalid format. expected format: access-<environment>-<identifier>".to_owned(),
    };
    Err(reason::INVALID_ACCESS_TOKEN.because(message))
}

/// Returns the `error_code` of calls with a token; `None` while it lives.
pub(super) fn died_of(token: &Token, rules: &Rules) -> Option<Cow<'static, str>> {
    token.killed_by().or_else(|| {
        let code = match rules.removed_item {
            RemovedItem::ItemNotFound => "ITEM_NOT_FOUND",
            RemovedItem::InvalidAccessToken => "INVALID_ACCESS_TOKEN",
        };
        token.item.state().removed.then_some(Cow::Borrowed(code))
    })
}

/// Refuses if the user has to log in again.
pub(super) fn check_login(item: &Item) -> Result<(), Refusal> {
    if item.state().login_required { Err(login_required()) } else { Ok(()) }
}
