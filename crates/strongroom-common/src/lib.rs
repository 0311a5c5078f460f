//! Types that the service and its development tools pass to each other: the clock and secret text.
//!
//! What only one side uses does not belong here.

pub mod clock;
pub mod secret;
