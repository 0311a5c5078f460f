//! Common types that every module may import and that import no module: ids, the clock, secret text, checked
//! text, paging, scopes, actors, signed statements, trace context, spans, TLS, the release; and the readers of other services' answers:
//! content codings, lenient JSON, `Retry-After`.

pub mod actor;
pub mod algorithm;
pub mod coding;
pub mod external_scopes;
pub mod ids;
pub mod lenient_json;
pub mod named;
pub mod paging;
pub mod retry_after;
pub mod scope;
pub mod secret;
pub mod signer;
pub mod spans;
pub mod strict_json;
pub mod text;
pub mod tls;
pub mod trace;

pub use strongroom_common::clock;

/// The release that this process runs.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
