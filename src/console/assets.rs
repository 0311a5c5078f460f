//! The console's own files, in the binary, under names that change with their content.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A file of the console.
#[derive(Debug)]
pub struct Asset {
    content: &'static [u8],
    media_type: &'static str,
    name: LazyLock<String>,
}

impl Asset {
    /// Returns the path of the file, which changes with its content.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/assets/{}", *self.name)
    }
}

/// Returns the name of a file: its stem, the beginning of its SHA-256, its extension.
fn hashed(stem: &str, extension: &str, content: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, content);
    let start = hash.as_ref().get(..9).unwrap_or_default();
    format!("{stem}-{}.{extension}", URL_SAFE_NO_PAD.encode(start))
}

macro_rules! assets {
    ($($(#[$doc:meta])* $name:ident = $stem:literal, $extension:literal, $media_type:literal;)*) => {
        $(
            $(#[$doc])*
            pub static $name: Asset = Asset {
                content: include_bytes!(concat!("assets/", $stem, ".", $extension)),
                media_type: $media_type,
                name: LazyLock::new(|| hashed(
                    $stem,
                    $extension,
                    include_bytes!(concat!("assets/", $stem, ".", $extension)),
                )),
            };
        )*

        static ALL: &[&Asset] = &[$(&$name),*];
    };
}

assets! {
    /// Times and numbers as the reader's locale has them; the live part of a page.
    PAGE_SCRIPT = "page", "js", "text/javascript; charset=utf-8";
    /// Verifies a chain, a checkpoint and a receipt.
    VERIFY_SCRIPT = "verify", "js", "text/javascript; charset=utf-8";
    /// The browser tab's picture.
    ICON = "icon", "svg", "image/svg+xml";
    /// The stylesheet of every page.
    STYLE = "console", "css", "text/css; charset=utf-8";
    /// Uses a one-time link's fragment up.
    SIGN_IN_SCRIPT = "sign-in", "js", "text/javascript; charset=utf-8";
    /// Signs in by a passkey, and adds one.
    PASSKEYS_SCRIPT = "passkeys", "js", "text/javascript; charset=utf-8";
}

/// The scripts of a page on which something can be verified.
pub static VERIFIES: &[&Asset] = &[&VERIFY_SCRIPT];

/// `GET /assets/{name}`.
pub async fn asset(name: web::Path<String>) -> HttpResponse {
    let Some(found) = ALL.iter().find(|asset| *asset.name == *name) else {
        return HttpResponse::NotFound().finish();
    };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, found.media_type))
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(found.content)
}
