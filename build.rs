//! The migrations are embedded by a macro, which cargo cannot see.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
