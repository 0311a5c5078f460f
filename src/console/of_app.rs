//! The app of a page under `/apps/{app}/…`.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::{Error, FromRequest, HttpRequest, web};

use super::context::Console;
use super::refusal::Refusal;
use crate::apps;
use crate::common::ids::AppId;
use crate::http::problem::Problem;

/// The app of a page. What a page shows is of this app alone.
#[derive(Clone, Debug)]
pub struct OfApp {
    /// The app's id.
    pub id: AppId,
    /// The app's name.
    pub name: String,
}

impl FromRequest for OfApp {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = req.match_info().get("app").and_then(|id| id.parse::<AppId>().ok());
        let console = req.app_data::<web::Data<Console>>().cloned();
        Box::pin(async move {
            let (Some(id), Some(console)) = (id, console) else {
                return Err(Refusal::not_found().into());
            };
            let found = async {
                let mut conn = console.pool.acquire().await?;
                apps::name(&mut conn, id).await
            };
            let name = found.await.map_err(Problem::from)?;
            let name = name.ok_or_else(Refusal::not_found)?;
            Ok(Self { id, name })
        })
    }
}

/// Returns the id in a path `/apps/{app}/…/{id}`, of which `path` has the two variable parts.
///
/// # Errors
/// One that is no such id is not found.
pub fn id_of<T: FromStr>(path: &(String, String)) -> Result<T, Problem> {
    path.1.parse().map_err(|_| Problem::not_found())
}
