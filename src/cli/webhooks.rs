//! `strongroom webhooks`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::identity::acting;
use super::output::{Output, table};
use super::session::{Session, app};
use crate::common::ids::{AppId, WebhookId, WebhookSecretId};
use crate::config::{Environment, Reader, read_allow_private_addresses};
use crate::events::endpoints::admin::{self, DEFAULT_OVERLAP, MAX_OVERLAP};
use crate::events::endpoints::{
    self, Change, DeliveryStatus, Draft, Signature, Webhook, WebhookDelivery, WebhookError,
};
use crate::events::kind::EventType;
use crate::outbound::Reach;

/// How many deliveries are shown.
const SHOWN: i64 = 50;

const EXAMPLES: &str = "\
Examples:
  Every event of the app `default`:
    strongroom webhooks add https://backend.example.com/hooks/strongroom

  Some types, signed with a key whose public half the receiver has:
    strongroom webhooks add https://backend.example.com/hooks/strongroom --signature v1a \\
      --event connection.active --event connection.attention";

/// Webhooks: endpoints to which an app's events are sent.
///
/// Each delivery is signed (Standard Webhooks) and made at least once: it is tried again for three days
/// until it is answered with 2xx.
#[derive(Debug, Args)]
pub(super) struct Webhooks {
    /// The app that they belong to.
    #[arg(long, global = true, default_value = crate::apps::DEFAULT)]
    app: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Show(Show),
    Change(ChangeArgs),
    Disable(Disable),
    Enable(Enable),
    Remove(Remove),
    AddSecret(AddSecret),
    EndSecret(EndSecret),
    Test(Test),
    Replay(Replay),
    Deliveries(Deliveries),
}

/// Add a webhook; prints its id and, this once, its secret.
///
/// The URL is https and leads to public addresses, unless `STRONGROOM_ALLOW_PRIVATE_ADDRESSES=true`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
struct Add {
    /// Where events are sent.
    url: String,
    /// A type of events that is sent; may be repeated. Without any, all of them are.
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// What people say about it.
    #[arg(long)]
    description: Option<String>,
    /// How deliveries are signed: with a secret that both sides have, or with a key whose public half is shown.
    #[arg(long, value_enum, default_value = "v1")]
    signature: Signature,
}

/// List webhooks, without their secrets.
#[derive(Debug, Args)]
struct List {}

/// Show one webhook, how it fares and since when its secrets live.
#[derive(Debug, Args)]
struct Show {
    /// The webhook, `wh_…`.
    id: WebhookId,
}

/// Change a webhook; what is left out stays. A wait after failures ends.
#[derive(Debug, Args)]
struct ChangeArgs {
    /// The webhook, `wh_…`.
    id: WebhookId,
    /// Where events are sent.
    #[arg(long)]
    url: Option<String>,
    /// A type of events that is sent; may be repeated.
    #[arg(long = "event", value_name = "TYPE", conflicts_with = "all_events")]
    events: Vec<String>,
    /// Send every type.
    #[arg(long)]
    all_events: bool,
    /// What people say about it; an empty one removes it.
    #[arg(long)]
    description: Option<String>,
    /// How deliveries are signed.
    #[arg(long, value_enum)]
    signature: Option<Signature>,
}

/// Send nothing to a webhook until it is enabled.
#[derive(Debug, Args)]
struct Disable {
    /// The webhook, `wh_…`.
    id: WebhookId,
}

/// Send events to a webhook again. Those of meanwhile: strongroom webhooks replay.
#[derive(Debug, Args)]
struct Enable {
    /// The webhook, `wh_…`.
    id: WebhookId,
}

/// Remove a webhook with its secrets and its deliveries.
#[derive(Debug, Args)]
struct Remove {
    /// The webhook, `wh_…`.
    id: WebhookId,
}

/// Give a webhook a second secret, printed this once, and the first an end. Until then both sign.
#[derive(Debug, Args)]
struct AddSecret {
    /// The webhook, `wh_…`.
    id: WebhookId,
    /// How long the secret that it has lives on, in seconds; 0 ends it at once, as after a leak.
    #[arg(long, default_value_t = DEFAULT_OVERLAP, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_OVERLAP)))]
    old_secrets_end_in: u32,
}

/// End one secret of a webhook now, but not the only one.
#[derive(Debug, Args)]
struct EndSecret {
    /// The webhook, `wh_…`.
    id: WebhookId,
    /// The secret, `whs_…`.
    secret: WebhookSecretId,
}

/// Send a test event, `webhook.test`, to a webhook alone. A running replica sends it.
#[derive(Debug, Args)]
struct Test {
    /// The webhook, `wh_…`.
    id: WebhookId,
}

/// Send the events of a range of time once more, at most 10,000.
///
/// Example: strongroom webhooks replay wh_… --from 2026-11-21T00:00:00Z --to 2026-11-22T00:00:00Z
#[derive(Debug, Args)]
struct Replay {
    /// The webhook, `wh_…`.
    id: WebhookId,
    /// Events of this time or later (RFC 3339).
    #[arg(long, value_parser = moment)]
    from: OffsetDateTime,
    /// Events before this time (RFC 3339).
    #[arg(long, value_parser = moment)]
    to: OffsetDateTime,
}

/// Show the deliveries of the newest 50 events.
#[derive(Debug, Args)]
struct Deliveries {
    /// The webhook, `wh_…`.
    id: WebhookId,
}

fn moment(text: &str) -> Result<OffsetDateTime, &'static str> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed.map_err(|_| "must be a time of RFC 3339, such as 2026-11-21T15:20:00Z")
}

impl Webhooks {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let allowed = Some(read_allow_private_addresses(&mut reader));
        let reach = Reach::allowing_private_addresses(reader.finish(allowed)?);
        let mut session = Session::open(environment).await?;
        let app = app(&mut session.conn, &self.app).await?.id;
        self.command.run(&mut session, app, reach, output).await
    }
}

impl Command {
    async fn run(
        self,
        session: &mut Session,
        app: AppId,
        reach: Reach,
        output: &Output,
    ) -> Result<(), Failure> {
        let actor = acting();
        match self {
            Self::Add(add) => add.run(session, app, reach, output).await,
            Self::List(_) => {
                list(&endpoints::list(&mut session.conn, app).await?, output);
                Ok(())
            }
            Self::Show(Show { id }) => {
                let found = endpoints::find(&mut session.conn, app, id).await?;
                let found = found.ok_or_else(|| failure(WebhookError::Unknown))?;
                output.result(&found, || described(&found));
                Ok(())
            }
            Self::Change(args) => {
                let (id, edit) = (args.id, args.change());
                change(session, app, id, edit, reach, output).await
            }
            Self::Disable(Disable { id }) => {
                let edit = Change { disabled: Some(true), ..Change::default() };
                change(session, app, id, edit, reach, output).await
            }
            Self::Enable(Enable { id }) => {
                let edit = Change { disabled: Some(false), ..Change::default() };
                change(session, app, id, edit, reach, output).await
            }
            Self::Remove(Remove { id }) => {
                let conn = &mut session.conn;
                admin::delete(conn, &actor, app, id).await.map_err(failure)?;
                output.result(&json!({ "id": id, "removed": true }), || {
                    format!("Removed the webhook {id} with its secrets and deliveries.")
                });
                Ok(())
            }
            Self::AddSecret(add) => add.run(session, app, output).await,
            Self::EndSecret(EndSecret { id, secret }) => {
                let conn = &mut session.conn;
                let ended = admin::end_secret(conn, &actor, app, id, secret).await;
                if !ended.map_err(failure)? {
                    return Err(Failure::Usage(format!("the webhook has no live secret {secret}")));
                }
                output.result(&json!({ "id": secret, "ended": true }), || {
                    format!("Ended the secret {secret}.")
                });
                Ok(())
            }
            Self::Test(Test { id }) => {
                let event =
                    admin::test(&mut session.conn, &actor, app, id).await.map_err(failure)?;
                output.result(&json!({ "id": event, "type": EventType::WebhookTest }), || {
                    format!("{event} is on its way; `strongroom webhooks deliveries {id}` shows how it went.")
                });
                Ok(())
            }
            Self::Replay(replay) => replay.run(session, app, output).await,
            Self::Deliveries(Deliveries { id }) => deliveries(session, app, id, output).await,
        }
    }
}

impl Add {
    async fn run(
        self,
        session: &mut Session,
        app: AppId,
        reach: Reach,
        output: &Output,
    ) -> Result<(), Failure> {
        let draft = Draft {
            url: Some(self.url),
            events: Some(self.events).filter(|events| !events.is_empty()),
            description: self.description,
            signature: Some(self.signature),
        };
        let (conn, vault) = (&mut session.conn, &session.vault);
        let made = admin::create(conn, vault, &acting(), app, draft, reach).await;
        let made = made.map_err(failure)?;
        let secret = made.secret.expose();
        let mut shown = json!(made.webhook);
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("secret".to_owned(), secret.into());
        }
        output.result(&shown, || {
            format!(
                "Added a webhook. Its secret is shown this once.\n\n{}\n{:<12}  {secret}",
                described(&made.webhook),
                "secret"
            )
        });
        Ok(())
    }
}

impl ChangeArgs {
    fn change(self) -> Change {
        let events = Some(Some(self.events).filter(|events| !events.is_empty()));
        Change {
            url: self.url,
            events: events.filter(|events| events.is_some() || self.all_events),
            description: self.description.map(|text| Some(text).filter(|text| !text.is_empty())),
            disabled: None,
            signature: self.signature,
        }
    }
}

async fn change(
    session: &mut Session,
    app: AppId,
    id: WebhookId,
    edit: Change,
    reach: Reach,
    output: &Output,
) -> Result<(), Failure> {
    let changed = admin::change(&mut session.conn, &acting(), app, id, edit, reach).await;
    let changed = changed.map_err(failure)?;
    output.result(&changed, || described(&changed));
    Ok(())
}

impl AddSecret {
    async fn run(self, session: &mut Session, app: AppId, output: &Output) -> Result<(), Failure> {
        let overlap = Duration::from_secs(self.old_secrets_end_in.into());
        let (conn, vault) = (&mut session.conn, &session.vault);
        let made = admin::add_secret(conn, vault, &acting(), app, self.id, overlap).await;
        let made = made.map_err(failure)?;
        let secret = made.secret.expose();
        let shown = json!({ "id": made.id, "secret": secret, "publicKey": made.public_key });
        output.result(&shown, || {
            format!(
                "A new secret, shown this once; the old one ends in {} seconds.\n\n\
                 id          {}\nsecret      {secret}\npublic key  {}",
                self.old_secrets_end_in, made.id, made.public_key
            )
        });
        Ok(())
    }
}

impl Replay {
    async fn run(self, session: &mut Session, app: AppId, output: &Output) -> Result<(), Failure> {
        if self.from >= self.to {
            return Err(Failure::Usage("--to must be after --from".to_owned()));
        }
        let (conn, range) = (&mut session.conn, (self.from, self.to));
        let replayed = admin::replay(conn, &acting(), app, self.id, range).await;
        let (queued, next) = replayed.map_err(failure)?;
        let next = next.and_then(|next| next.format(&Rfc3339).ok());
        output.result(&json!({ "queued": queued, "continueFrom": next }), || match &next {
            None => format!("{queued} events are on their way."),
            Some(next) => format!("{queued} events are on their way; go on with --from {next}."),
        });
        Ok(())
    }
}

async fn deliveries(
    session: &mut Session,
    app: AppId,
    id: WebhookId,
    output: &Output,
) -> Result<(), Failure> {
    let conn = &mut session.conn;
    endpoints::find(conn, app, id).await?.ok_or_else(|| failure(WebhookError::Unknown))?;
    let rows = endpoints::deliveries(conn, app, id, None, SHOWN).await?;
    let shown: Vec<_> = rows.into_iter().map(WebhookDelivery::from).collect();
    let lines: Vec<_> = shown.iter().map(line).collect();
    output.result(&shown, || {
        if lines.is_empty() {
            return "There is no delivery yet.".to_owned();
        }
        table(["EVENT", "TYPE", "STATUS", "ATTEMPTS", "LAST ERROR"], &lines)
    });
    Ok(())
}

fn line(delivery: &WebhookDelivery) -> [String; 5] {
    let status = match delivery.status {
        DeliveryStatus::Pending => "pending",
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::Failed => "failed",
    };
    [
        delivery.event_id.to_string(),
        delivery.kind.clone(),
        status.to_owned(),
        delivery.attempts.to_string(),
        delivery.error.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn failure(error: WebhookError) -> Failure {
    match error {
        WebhookError::Invalid(invalid) => Failure::Usage(invalid.to_string()),
        WebhookError::Unknown => Failure::Usage(
            "the app has no webhook of this id; `strongroom webhooks list` shows them".to_owned(),
        ),
        error => Failure::other(error),
    }
}

fn list(webhooks: &[Webhook], output: &Output) {
    output.result(&webhooks, || {
        if webhooks.is_empty() {
            return "There is no webhook yet; `strongroom webhooks add` makes one.".to_owned();
        }
        let row = |webhook: &Webhook| [webhook.id.to_string(), webhook.url.clone(), state(webhook)];
        table(["ID", "URL", "STATE"], &webhooks.iter().map(row).collect::<Vec<_>>())
    });
}

fn state(webhook: &Webhook) -> String {
    match (&webhook.disabled_reason, &webhook.last_error) {
        (Some(reason), _) => format!("disabled: {reason:?}").to_lowercase(),
        (None, Some(error)) => format!("failing: {error}"),
        (None, None) => "enabled".to_owned(),
    }
}

fn described(webhook: &Webhook) -> String {
    let none = || "-".to_owned();
    let events = webhook.events.as_ref().map_or_else(|| "all".to_owned(), |types| types.join(" "));
    let secrets: Vec<_> = webhook.secrets.iter().map(|secret| secret.id.to_string()).collect();
    let lines = [
        ("id", webhook.id.to_string()),
        ("url", webhook.url.clone()),
        ("events", events),
        ("description", webhook.description.clone().unwrap_or_else(none)),
        ("signature", webhook.signature.as_str().to_owned()),
        ("public key", webhook.public_key.clone().unwrap_or_else(none)),
        ("state", state(webhook)),
        ("secrets", secrets.join(" ")),
    ];
    lines.map(|(name, value)| format!("{name:<12}  {value}")).join("\n")
}
