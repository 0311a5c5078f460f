.PHONY: test test-kms test-ha test-pgbouncer test-upgrade test-deploy test-production test-docs test-api-document test-browser test-client-libraries test-examples example soak fmt lint sqlx doc bench bench-compare bench-events bench-growth bench-peers

## Everything that has to hold; needs Rust, a C compiler and PostgreSQL's programs.
test:
	cargo test --workspace --features failpoints --no-fail-fast

## Master keys elsewhere, against a real OpenBao and moto's AWS KMS, with the lines of their runbook; needs Python 3.
test-kms:
	scripts/test-kms

## Failover: a cluster of three behind two replicas, whose primary is killed, cut off, paused and switched over. Needs root,
## Python 3 and Debian's patroni, etcd-server and haproxy; ROUNDS=10 repeats it.
test-ha:
	scripts/test-ha

## The tests of the API with pgbouncer between the services and PostgreSQL; PGBOUNCER names its binary.
test-pgbouncer:
	scripts/test-pgbouncer

## A fleet under load becomes this release, goes back, and comes again; needs Python 3.
test-upgrade:
	scripts/test-upgrade

## The chart, units, alerts, workflows and the image's files, with the programs that read them; needs Python 3 and Debian's
## prometheus, systemd and shellcheck, and says what it skips.
test-deploy:
	scripts/test-deploy

## The binary that production runs: what it must not contain, and what it says instead.
test-production:
	scripts/test-production

## The lines of every document, against a `strongroom dev`; needs node with npm, Python 3, psql and curl.
test-docs:
	scripts/test-documents

## The OpenAPI document against Redocly, Spectral and schemathesis; needs node with npm and Python 3.
test-api-document:
	scripts/test-api-document

## The client libraries in clients/, as packed and against a service; needs node with npm and Python 3.
test-client-libraries:
	scripts/test-client-libraries

## The demo page in headless Chromium; needs node with npm and Chromium.
test-browser:
	scripts/test-browser

## The example in examples/web, with either backend, in headless Chromium; needs node with npm, Python 3 and Chromium.
test-examples:
	scripts/test-examples

## Starts the example at http://127.0.0.1:3000, beside a `strongroom dev`; BACKEND=python chooses the other backend.
example:
	examples/web/start $(or $(BACKEND),node)

## The real binary, killed 1,000 times at random moments under load; STRONGROOM_SOAK_KILLS and STRONGROOM_SOAK_SEED
## change that.
soak:
	cargo test --test soak -- --nocapture

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo clippy --no-default-features -- -D warnings

## Describe every query of the code in .sqlx, after changing one.
sqlx:
	scripts/sqlx-prepare

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

## Ratios against pgbench and a bare server, in one run; BENCH_ONLY, BENCH_ROUNDS and BENCH_SECONDS change it.
bench:
	cargo bench --bench ratios

## This tree beside another revision, in turns: make bench-compare REV=main~5
bench-compare:
	scripts/bench-compare $(REV)

## About a thousand events a second to twenty webhooks, of which one hangs.
bench-events:
	cargo bench --bench ratios -- --events

## The cost of each kind of request beside 10⁴, 10⁵ and 10⁶ connections, and the size of one; BENCH_GROWTH_SIZES changes that.
bench-growth:
	cargo bench --bench ratios -- --growth

## Tokens and exchanges per CPU second beside npm oidc-provider and a backend of fastify, in one run; needs node with npm.
bench-peers:
	npm ci --prefix benches/peers --ignore-scripts --no-audit --no-fund --loglevel=error
	cargo bench --bench ratios -- --peers
