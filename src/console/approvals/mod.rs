//! Approvals: what waits for a second person, with its dry run, and where it is approved or rejected.

mod carry_out;
mod effect;
mod page;
pub mod routes;

use actix_web::HttpResponse;

use super::answer::see_other;
use crate::common::ids::{AppId, ApprovalId};

/// Leads to the page of a request that was recorded instead of being carried out.
pub fn to(app: AppId, id: ApprovalId) -> HttpResponse {
    see_other(&format!("/apps/{app}/approvals/{id}"))
}
