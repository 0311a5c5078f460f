//! `/operators`: the operators of the deployment and their sessions.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};

use super::answer::see_other;
use super::context::Console;
use super::layout::{answer, plain, token_field};
use super::parts::{empty, moment, pill};
use super::signed_in::SignedIn;
use crate::common::ids::OperatorSessionId;
use crate::http::problem::Problem;
use crate::operators::{self, ListedSession, Operator, Role};

/// `GET /operators`.
pub async fn page(
    signed_in: SignedIn,
    console: web::Data<Console>,
) -> Result<HttpResponse, Problem> {
    let mut conn = console.pool.acquire().await?;
    let people = operators::list(&mut conn).await?;
    let sessions = operators::list_sessions(&mut conn).await?;
    let main = html! {
        section aria-labelledby="people" { h2 id="people" { "People" } (table(&people)) }
        section aria-labelledby="sessions" { h2 id="sessions" { "Sessions" } (open(&signed_in, &sessions)) }
        p.soft { "Operators are added, linked and disabled at the command line: strongroom operators." }
    };
    Ok(answer(StatusCode::OK, plain("Operators", &signed_in, &main)))
}

fn table(people: &[Operator]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="People" {
            table {
                thead { tr { th { "Name" } th { "Role" } th { "State" } th { "Added" } } }
                tbody {
                    @for person in people {
                        tr {
                            th scope="row" { (person.name) }
                            td { (person.role.as_str()) }
                            td { (pill(if person.disabled_at.is_some() { "disabled" } else { "enabled" })) }
                            td { (moment(person.created_at)) }
                        }
                    }
                }
            }
        }
    }
}

fn open(signed_in: &SignedIn, sessions: &[ListedSession]) -> Markup {
    html! {
        @if sessions.is_empty() { (empty("None.")) }
        div.scroll tabindex="0" role="group" aria-label="Sessions" {
            table {
                thead { tr { th { "Operator" } th { "Begun" } th { "From" } th { "Last seen" } th { "Ends" } @if signed_in.may(Role::Admin) { th { "End" } } } }
                tbody {
                    @for session in sessions {
                        tr id=(session.id) {
                            th scope="row" { (session.operator) @if session.id == signed_in.session.session { " (this one)" } }
                            td { (moment(session.created_at)) }
                            td { @if let Some(ip) = &session.ip { (ip) } }
                            td { (moment(session.last_seen_at)) }
                            td { (moment(session.expires_at)) }
                            @if signed_in.may(Role::Admin) {
                                td {
                                    form method="post" action={ "/operators/sessions/" (session.id) "/end" } {
                                        (token_field(signed_in))
                                        button.quiet type="submit" aria-label={ "End it: the session of " (session.operator) ", begun " (session.created_at.date()) } { "End it" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `POST /operators/sessions/{id}/end`.
pub async fn end_session(
    signed_in: SignedIn,
    console: web::Data<Console>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id: OperatorSessionId = id.parse().map_err(|_| Problem::not_found())?;
    let mut conn = console.pool.acquire().await?;
    if !operators::end_session(&mut conn, &signed_in.actor, id).await? {
        return Err(Problem::not_found());
    }
    Ok(see_other("/operators"))
}
