//! A request to import a token, as the API and the files of `strongroom connections import` write it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::common::ids::AppId;
use crate::common::trace::TraceContext;
use crate::connections::import::{Import, KnownLogin, NotImported};
use crate::connections::input::{
    Checked, client_user_id, login, login_of_another_user, optional_name, required,
};
use crate::connections::model::Failure;
use crate::http::problem::{Problem, ProblemCode};
use crate::providers::{AccessToken, Provider, Refusal, UserSecret};

/// A token that the app already holds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportRequest {
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    pub client_user_id: Option<String>,
    /// Dapi: its name for the bank login.
    #[serde(rename = "connectionID")]
    pub login_id: Option<String>,
    /// Plaid: its name for the bank login.
    #[serde(rename = "itemID")]
    pub item_id: Option<String>,
    /// The permanent token.
    pub access_token: Option<AccessToken>,
    /// Dapi: Connect's user secret.
    pub user_secret: Option<UserSecret>,
    /// Dapi's name for the user.
    #[serde(rename = "userID")]
    pub user_id: Option<String>,
    /// Dapi's name for the token.
    #[serde(rename = "tokenID")]
    pub dapi_token_id: Option<String>,
    /// Ask the provider first whether it takes the token, by one call.
    #[serde(default)]
    pub verify: bool,
}

impl ImportRequest {
    /// Checks every field. `verify` is the trace of the call that verifies the token, if one is to be made.
    ///
    /// # Errors
    /// Names the first field that is missing or invalid.
    pub fn checked(
        self,
        app: AppId,
        verify: Option<TraceContext>,
        known_login: KnownLogin,
    ) -> Result<Import, Problem> {
        let user = required("clientUserID", self.client_user_id)?;
        client_user_id(&user)?;
        let (provider, login_id, user_secret) = if self.item_id.is_some() {
            (Provider::Plaid, login("itemID", self.item_id)?, None)
        } else {
            let login_id = self.login_id.ok_or_else(|| {
                Problem::invalid_field(
                    "connectionID",
                    "is missing; a token of Plaid's comes with `itemID`",
                )
            })?;
            let login_id = login("connectionID", Some(login_id))?;
            let user_secret = UserSecret::checked("userSecret", self.user_secret)?;
            (Provider::Dapi, login_id, Some(user_secret))
        };
        Ok(Import {
            app,
            client_user_id: user,
            provider,
            login_id,
            access_token: AccessToken::checked("accessToken", self.access_token)?,
            user_secret,
            dapi_user_id: optional_name("userID", self.user_id)?,
            dapi_token_id: optional_name("tokenID", self.dapi_token_id)?,
            verify,
            known_login,
        })
    }
}

/// Returns why a token of `provider` was not imported.
pub fn problem_of(provider: Provider, why: NotImported) -> Problem {
    match why {
        NotImported::OfAnotherProvider(expected) => of_another_provider(expected),
        NotImported::UserBeingErased => Problem::user_being_erased(),
        NotImported::LoginOfAnotherUser => login_of_another_user(),
        NotImported::Refused(refusal) => refused(provider, refusal),
        NotImported::Unanswered { timeout } => unanswered(provider, timeout),
        NotImported::Busy(busy) => too_many_calls(provider, busy.retry_after),
    }
}

fn of_another_provider(expected: Provider) -> Problem {
    let field = match expected {
        Provider::Dapi => "connectionID",
        Provider::Plaid => "itemID",
    };
    Problem::invalid_field(field, format_args!("is what a token of {} comes with", expected.name()))
}

fn too_many_calls(provider: Provider, retry_after: Duration) -> Problem {
    let detail =
        format!("As many calls to {} are under way as may; nothing was imported.", provider.name());
    let problem = Problem::new(ProblemCode::TooManyRequests, detail);
    problem.retry_after(retry_after.as_secs().max(1))
}

fn refused(provider: Provider, Refusal { kind, message }: Refusal) -> Problem {
    let detail = format!("{} answered {kind}: {message}. Nothing was imported.", provider.name());
    let problem = Problem::new(ProblemCode::TokenRejected, detail);
    problem.with("failure", json!(Failure { kind, detail: message }))
}

fn unanswered(provider: Provider, timeout: bool) -> Problem {
    let (code, what) = if timeout {
        (ProblemCode::UpstreamTimeout, "did not answer in time")
    } else {
        (ProblemCode::UpstreamFailed, "gave no usable answer")
    };
    Problem::new(code, format!("{} {what}; nothing was imported.", provider.name()))
}
