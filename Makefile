.PHONY: test lint fmt sqlx doc

## Everything that has to hold; needs Rust, a C compiler and PostgreSQL's programs.
test:
	cargo test --features failpoints

fmt:
	cargo fmt --check

lint:
	cargo clippy --all-targets --all-features -- -D warnings

## Describe every query of the code in .sqlx, after changing one.
sqlx:
	scripts/sqlx-prepare

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
