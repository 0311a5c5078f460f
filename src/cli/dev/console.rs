//! The operator `dev`, who is signed in by a link that `strongroom dev` prints.

use super::Failure;
use super::variables::Variables;
use crate::approvals::Permitted;
use crate::common::actor::Actor;
use crate::common::secret::SecretText;
use crate::config::FourEyes;
use crate::operators::{self, OperatorName, Role};
use crate::service::Service;

const LISTEN: &str = "STRONGROOM_CONSOLE_LISTEN";
/// The name of the operator.
const NAME: &str = "dev";

/// Where the console is.
pub(super) struct SignIn {
    pub(super) url: String,
    /// A one-time link for the operator `dev`.
    pub(super) sign_in: SecretText,
}

/// Ensures the operator, and creates a link for them.
pub(super) async fn sign_in(
    service: &Service,
    variables: &mut Variables,
) -> Result<SignIn, Failure> {
    let url = service.console_url().map(|url| url.as_str().to_owned());
    let url = url.ok_or_else(|| Failure::other("the console does not listen"))?;
    // What `strongroom operators link` prints, whichever port was chosen. The one setting is refused without the other, and
    // the user may have set the other in another shell.
    variables.write("STRONGROOM_CONSOLE_URL", &url);
    let listen = variables.environment().get(LISTEN).map(str::to_owned);
    variables.write(LISTEN, &listen.unwrap_or_default());
    let context = service.context();
    let mut conn = context.pool.acquire().await?;
    let (actor, name): (_, OperatorName) =
        (Actor::operator(), NAME.parse().map_err(Failure::other)?);
    if operators::find(&mut conn, &name).await?.is_none() {
        let permitted = Permitted::without(FourEyes::OFF);
        let permitted = permitted.ok_or_else(|| Failure::other("four eyes are on"))?;
        let added = operators::add(&mut conn, &permitted, &actor, &name, Role::Admin, None).await;
        added.map_err(Failure::other)?;
    }
    let token = operators::create_link(&mut conn, &context.vault, &actor, &name).await;
    let sign_in = operators::link_url(&url, &token.map_err(Failure::other)?);
    Ok(SignIn { url, sign_in })
}
