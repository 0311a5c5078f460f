//! The backend behind the page.
//!
//! May import: actix, calls, connection id, link, page, problem, store.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::calls::Answer;
use super::connection_id::ConnectionId;
use super::link::Link;
use super::problem::Failed;
use super::{Demo, USER, page, store};

/// The lifetime of the code in the expiry demonstration, in seconds.
const SHORT_LIFE: u32 = 20;
/// The parts of a sealed value before the ciphertext (docs/adr/0002-the-sealed-format.md).
const PARTS: [(&str, usize); 3] = [("format", 1), ("dataKey", 16), ("nonce", 12)];
/// The length of the authentication tag after the ciphertext, in bytes.
const TAG: usize = 16;

type Handled = Result<HttpResponse, Failed>;

pub(super) fn all(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(index))
        .route("/demo.css", web::get().to(async || page::style()))
        .route("/demo.js", web::get().to(async || page::script()))
        .route("/api/session", web::post().to(session))
        .route("/api/link-token", web::post().to(link_token))
        .route("/api/logins", web::get().to(logins))
        .route("/api/connections", web::get().to(connections))
        .route("/api/connections/{id}/inside", web::get().to(inside))
        .route("/api/connections/{id}/reveal", web::post().to(reveal))
        .route("/api/connections/{id}/accounts", web::get().to(accounts))
        .route("/api/connections/{id}/delink", web::post().to(delink))
        .route("/api/expiry", web::post().to(expiry))
        .app_data(
            web::QueryConfig::default()
                .error_handler(|error, _| Failed::BadRequest(error.to_string()).into()),
        )
        .app_data(
            web::JsonConfig::default()
                .error_handler(|error, _| Failed::BadRequest(error.to_string()).into()),
        );
}

async fn index(demo: web::Data<Demo>) -> impl Responder {
    demo.page.html()
}

/// Passes on an answer of Strongroom or the sandbox unchanged.
fn passed_on(answer: Answer) -> HttpResponse {
    HttpResponse::build(answer.status)
        .content_type("application/json")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(answer.body)
}

fn parse(id: &str) -> Result<ConnectionId, Failed> {
    ConnectionId::parse(id).ok_or(Failed::NotFound)
}

/// Which bank link a request is about.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    link: Link,
}

/// Creates a connect session, all that the page needs to submit a result. Checks first that the sandbox is
/// reachable, because a frame cannot detect that its page did not load.
async fn session(demo: web::Data<Demo>, about: web::Query<About>) -> Handled {
    demo.sandbox.is_there().await?;
    demo.at(about.link).connect_session().await.map(passed_on)
}

async fn link_token(demo: web::Data<Demo>) -> Handled {
    demo.at(Link::Plaid).link_token().await.map(passed_on)
}

async fn connections(demo: web::Data<Demo>, about: web::Query<About>) -> Handled {
    demo.at(about.link).connections().await.map(passed_on)
}

async fn logins(demo: web::Data<Demo>) -> Handled {
    demo.sandbox.logins().await.map(passed_on)
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

async fn reveal(
    demo: web::Data<Demo>,
    id: web::Path<String>,
    about: web::Query<About>,
    body: web::Json<Reason>,
) -> Handled {
    demo.at(about.link).reveal(parse(&id)?, &body.reason).await.map(passed_on)
}

async fn accounts(
    demo: web::Data<Demo>,
    id: web::Path<String>,
    about: web::Query<About>,
) -> Handled {
    demo.at(about.link).accounts(about.link, parse(&id)?).await.map(passed_on)
}

async fn delink(demo: web::Data<Demo>, id: web::Path<String>, about: web::Query<About>) -> Handled {
    demo.at(about.link).delink(parse(&id)?).await.map(passed_on)
}

async fn expiry(demo: web::Data<Demo>) -> Handled {
    demo.sandbox.unlucky_login(SHORT_LIFE).await.map(passed_on)
}

/// How a connection is stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inside {
    /// The random id that stands for the user everywhere in the database.
    user: String,
    sealed: Option<SealedView>,
    audit: Vec<EventView>,
}

/// A sealed value, part by part.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SealedView {
    column: String,
    bytes: usize,
    #[serde(rename = "dataKeyID")]
    data_key_id: Option<Uuid>,
    #[serde(rename = "masterKeyID")]
    master_key_id: String,
    /// The parts in order, in hexadecimal.
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    name: &'static str,
    hex: String,
}

#[derive(Serialize)]
struct EventView {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    action: String,
    actor: String,
    reason: Option<String>,
}

/// Reads from PostgreSQL how a connection's secret is stored, and its audit events.
async fn inside(demo: web::Data<Demo>, id: web::Path<String>, about: web::Query<About>) -> Handled {
    let (id, app) = (parse(&id)?, demo.at(about.link).app());
    let mut conn = demo.pool.acquire().await?;
    let lying = store::lying(&mut conn, app, USER, id).await?.ok_or(Failed::NotFound)?;
    let events = store::events(&mut conn, app, id).await?;
    let sealed = lying.column.zip(lying.sealed);
    let inside = Inside {
        user: format!("usr_{}", lying.user_id),
        sealed: sealed.map(|(column, bytes)| view(column, &bytes, lying.master_key_id)),
        audit: events.into_iter().map(EventView::from).collect(),
    };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(inside))
}

impl From<store::Event> for EventView {
    fn from(store::Event { at, action, actor, reason }: store::Event) -> Self {
        Self { at, action, actor, reason }
    }
}

fn view(column: String, bytes: &[u8], master_key_id: String) -> SealedView {
    let mut rest = bytes;
    let mut data_key_id = None;
    let mut parts = Vec::with_capacity(PARTS.len() + 2);
    for (name, length) in PARTS {
        let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if name == "dataKey" {
            data_key_id = Uuid::from_slice(part).ok();
        }
        parts.push(Part { name, hex: hex::encode(part) });
        rest = behind;
    }
    let (ciphertext, tag) = rest.split_at(rest.len().saturating_sub(TAG));
    parts.push(Part { name: "ciphertext", hex: hex::encode(ciphertext) });
    parts.push(Part { name: "tag", hex: hex::encode(tag) });
    SealedView { column, bytes: bytes.len(), data_key_id, master_key_id, parts }
}
