//! `strongroom dev`, the real binary, as a newcomer runs it: in a folder of its own, on free ports.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what a test leans on is there or the test fails; clippy sees no test in a helper"
)]

mod container;
mod demo;
mod flow;
mod lives;
mod support;
mod workbench;
