//! Logins, codes and tokens, and their rules: a code is exchanged once and in time, a token lives until it is
//! delinked, and no two calls use one token at once.
//!
//! No I/O; only digests of secrets are kept. Each kind is bounded: beyond the capacity the oldest is evicted,
//! which to a caller looks like a code or token that never existed.
//!
//! May import: answer, bank, bounded, mint, payees, settings, `single_use`.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, Weak};

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::answer::{Refusal, reason};
use super::bank::{Bank, Holder};
use super::bounded::{Bounded, locked};
use super::mint::{self, Digest, Mint};
use super::payees::Payees;
use super::settings::{App, DelinkCuts, Rules};
use super::single_use::{SingleUse, Spent, Turn};

/// One bank login of one user of one app.
pub(super) struct Login {
    pub(super) app: Arc<App>,
    pub(super) connection_id: String,
    pub(super) user_id: String,
    pub(super) holder: Holder,
    pub(super) payees: Mutex<Payees>,
    /// The tokens of this login that are not evicted.
    tokens: Mutex<Vec<Weak<Token>>>,
}

/// One passage through Connect: a login, and the user secret that was issued.
struct Link {
    login: Arc<Login>,
    user_secret: Digest,
}

struct Code {
    link: Arc<Link>,
    token_id: Uuid,
    once: SingleUse<Arc<Token>>,
}

pub(super) struct Token {
    pub(super) id: Uuid,
    pub(super) issued_at: OffsetDateTime,
    link: Arc<Link>,
    use_of: Mutex<Use>,
}

#[derive(Default)]
struct Use {
    /// The `type` with which the dead token is refused.
    died_of: Option<Cow<'static, str>>,
    running: u32,
    /// Whether two calls overlapped. Set until the last of them ends.
    collided: bool,
}

impl Token {
    pub(super) fn login(&self) -> &Arc<Login> {
        &self.link.login
    }

    /// Returns the `type` with which this token is refused; `None` while it lives.
    pub(super) fn died_of(&self) -> Option<Cow<'static, str>> {
        locked(&self.use_of).died_of.clone()
    }

    /// Ends the token; an earlier `type` stays.
    pub(super) fn kill(&self, kind: Cow<'static, str>) {
        locked(&self.use_of).died_of.get_or_insert(kind);
    }
}

/// A call's use of a token, from its arrival to its answer.
pub(super) struct TokenUse(Arc<Token>);

impl TokenUse {
    pub(super) fn begin(token: Arc<Token>) -> Self {
        {
            let mut state = locked(&token.use_of);
            state.running += 1;
            state.collided |= state.running > 1;
        }
        Self(token)
    }

    pub(super) fn token(&self) -> &Arc<Token> {
        &self.0
    }

    /// Refuses if another call used the token meanwhile.
    fn check_alone(&self) -> Result<(), Refusal> {
        if locked(&self.0.use_of).collided {
            let msg = "two calls used this access token at once; all of them failed";
            return Err(reason::SESSION_INVALIDATED.because(msg));
        }
        Ok(())
    }
}

impl Drop for TokenUse {
    fn drop(&mut self) {
        let mut state = locked(&self.0.use_of);
        state.running -= 1;
        state.collided &= state.running > 0;
    }
}

/// What Connect gives to a frontend.
pub(super) struct Linked {
    pub(super) access_code: String,
    pub(super) connection_id: String,
    pub(super) user_secret: String,
    pub(super) user_id: String,
    pub(super) token_id: Uuid,
}

pub(super) struct LinkRequest {
    pub(super) app: Arc<App>,
    pub(super) connection_id: String,
    pub(super) user_id: String,
    pub(super) bank: Option<&'static Bank>,
    pub(super) lifetime: Duration,
    pub(super) opaque: bool,
}

pub(super) struct Exchanged {
    pub(super) access_token: String,
    pub(super) token: Arc<Token>,
}

pub(super) struct Links {
    pub(super) mint: Mint,
    apps: Vec<Arc<App>>,
    /// Keyed by the digest of app, `connectionID` and `userID`.
    logins: Mutex<Bounded<Digest, Arc<Login>>>,
    codes: Mutex<Bounded<Digest, Arc<Code>>>,
    tokens: Mutex<Bounded<Uuid, Arc<Token>>>,
}

impl Links {
    pub(super) fn new(apps: Vec<App>, capacity: usize) -> Self {
        Self {
            mint: Mint::new(),
            apps: apps.into_iter().map(Arc::new).collect(),
            logins: Mutex::new(Bounded::new(capacity)),
            codes: Mutex::new(Bounded::new(capacity)),
            tokens: Mutex::new(Bounded::new(capacity)),
        }
    }

    /// Returns the app with this key; the first one if none is given.
    pub(super) fn app(&self, key: Option<&str>) -> Option<&Arc<App>> {
        match key {
            Some(key) => self.apps.iter().find(|app| app.key == key),
            None => self.apps.first(),
        }
    }

    pub(super) fn app_with_secret(&self, secret: &str) -> Result<&Arc<App>, Refusal> {
        let app = self.apps.iter().find(|app| app.secret.expose() == secret);
        app.ok_or_else(|| reason::INVALID_APP_SECRET.because("appSecret belongs to no app"))
    }

    /// Links a login: a user went through Connect.
    pub(super) fn link(&self, request: LinkRequest, now: OffsetDateTime) -> Linked {
        let token_id = self.mint.uuid();
        let user_secret = self.mint.user_secret();
        let expires_at = now.saturating_add(request.lifetime);
        let access_code = if request.opaque {
            self.mint.opaque_code()
        } else {
            let (iat, exp) = (now.unix_timestamp(), expires_at.unix_timestamp());
            self.mint.code(&request.app.key, token_id, iat, exp)
        };
        let login = self.login(request);
        let (connection_id, user_id) = (login.connection_id.clone(), login.user_id.clone());
        let link = Arc::new(Link { login, user_secret: mint::digest_of(&user_secret) });
        let code = Code { link, token_id, once: SingleUse::until(expires_at) };
        locked(&self.codes).insert(mint::digest_of(&access_code), Arc::new(code));
        Linked { access_code, connection_id, user_secret, user_id, token_id }
    }

    /// Returns the login, the existing one if it is known.
    fn login(&self, request: LinkRequest) -> Arc<Login> {
        let LinkRequest { app, connection_id, user_id, bank, .. } = request;
        let key = mint::digest_of(&format!("{:?}", (&app.key, &connection_id, &user_id)));
        let mut logins = locked(&self.logins);
        if let Some(known) = logins.get(&key) {
            return Arc::clone(known);
        }
        let bank = bank.unwrap_or_else(|| Bank::for_login(&connection_id));
        let login = Arc::new(Login {
            app,
            holder: Holder::new(bank, &connection_id),
            connection_id,
            user_id,
            payees: Mutex::default(),
            tokens: Mutex::default(),
        });
        logins.insert(key, Arc::clone(&login));
        login
    }

    /// Returns the `tokenID` of a code, also of a consumed or expired one.
    pub(super) fn token_id_of_code(&self, access_code: &str) -> Option<Uuid> {
        self.code(access_code).map(|code| code.token_id)
    }

    fn code(&self, access_code: &str) -> Option<Arc<Code>> {
        let digest = mint::digest_of(access_code);
        locked(&self.codes).get(&digest).cloned()
    }

    pub(super) fn exchange(
        &self,
        app: &Arc<App>,
        access_code: &str,
        connection_id: &str,
        rules: &Rules,
        now: OffsetDateTime,
    ) -> Result<Exchanged, Refusal> {
        let code = self
            .code(access_code)
            .filter(|code| Arc::ptr_eq(&code.link.login.app, app))
            .ok_or_else(|| reason::INVALID_ACCESS_CODE.because("this app knows no such code"))?;
        if code.link.login.connection_id != connection_id {
            let msg = "connectionID is not the one that came with the code";
            return Err(reason::INVALID_CONNECTION.because(msg));
        }
        let exchanged = code.once.exchange(rules.second_exchange, now, |turn| match turn {
            Turn::First => self.issue(&code, code.token_id, now),
            Turn::Another => self.issue(&code, self.mint.uuid(), now),
        });
        let token = exchanged.map_err(|spent| match spent {
            Spent::Expired => reason::ACCESS_CODE_EXPIRED.because("the code has expired"),
            Spent::Used => reason::ACCESS_CODE_USED.because("the code was exchanged before"),
        })?;
        let issued_at = token.issued_at.unix_timestamp();
        Ok(Exchanged { access_token: self.mint.token(&app.key, token.id, issued_at), token })
    }

    fn issue(&self, code: &Code, id: Uuid, now: OffsetDateTime) -> Arc<Token> {
        let token = Arc::new(Token {
            id,
            issued_at: now,
            link: Arc::clone(&code.link),
            use_of: Mutex::default(),
        });
        let mut siblings = locked(&code.link.login.tokens);
        siblings.retain(|sibling| sibling.strong_count() > 0);
        siblings.push(Arc::downgrade(&token));
        drop(siblings);
        locked(&self.tokens).insert(id, Arc::clone(&token));
        token
    }

    /// Returns the presented token, dead or alive.
    pub(super) fn token(&self, access_token: &str) -> Option<Arc<Token>> {
        self.token_by_id(self.mint.token_id(access_token)?)
    }

    pub(super) fn token_by_id(&self, id: Uuid) -> Option<Arc<Token>> {
        locked(&self.tokens).get(&id).cloned()
    }

    pub(super) fn newest_tokens(&self, limit: usize) -> Vec<Arc<Token>> {
        locked(&self.tokens).newest().take(limit).cloned().collect()
    }

    pub(super) fn newest_logins(&self, limit: usize) -> Vec<Arc<Login>> {
        locked(&self.logins).newest().take(limit).cloned().collect()
    }

    pub(super) fn tokens_known(&self) -> usize {
        locked(&self.tokens).len()
    }
}

/// Admits a call with a token if the token lives, the secrets belong to it, and no other call uses it.
/// `user_secret` is `None` for calls that need not send one.
pub(super) fn admit(
    token_use: &TokenUse,
    app: &Arc<App>,
    user_secret: Option<&str>,
    rules: &Rules,
) -> Result<(), Refusal> {
    let token = token_use.token();
    if let Some(kind) = token.died_of() {
        return Err(Refusal {
            kind,
            ..reason::USER_DELINKED.because("the user is no longer linked")
        });
    }
    if !Arc::ptr_eq(&token.login().app, app) {
        let msg = "the access token belongs to another app";
        return Err(reason::INVALID_CONNECTION.because(msg));
    }
    if user_secret.is_some_and(|secret| mint::digest_of(secret) != token.link.user_secret) {
        let msg = "userSecret does not belong to this access token";
        return Err(reason::INVALID_USER_SECRET.because(msg));
    }
    if rules.one_call_per_token {
        token_use.check_alone()?;
    }
    Ok(())
}

/// Unlinks the user: ends the token, or all tokens of its login.
pub(super) fn delink(token: &Token, cuts: DelinkCuts) {
    let delinked = Cow::Borrowed("USER_DELINKED");
    match cuts {
        DelinkCuts::Token => token.kill(delinked),
        DelinkCuts::Login => {
            for sibling in locked(&token.login().tokens).iter().filter_map(Weak::upgrade) {
                sibling.kill(delinked.clone());
            }
        }
    }
}
