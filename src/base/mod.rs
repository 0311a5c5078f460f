//! What every room knows and what knows no room: ids, the clock, secret text, checked text, paging.

pub mod clock;
pub mod ids;
pub mod paging;
pub mod secret;
pub mod text;
