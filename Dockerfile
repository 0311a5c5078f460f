# syntax=docker/dockerfile:1
# Builds the release binary without the development tools, and an image of nothing but it, the four libraries of glibc and
# GCC that it is linked to, and root certificates. `docker build -t strongroom .`

FROM rust:1.95-slim-bookworm AS build
# aws-lc, the cryptographic library behind TLS and signatures, is built from C.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates cmake gcc g++ make \
 && rm -rf /var/lib/apt/lists/*
# Writes the list of all dependencies into the binary, where scanners such as `cargo audit bin` and trivy find it.
RUN cargo install --locked cargo-auditable@0.7.7
WORKDIR /src

# The dependencies first, against an empty program: this layer changes only with Cargo.lock.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY crates/strongroom-common/Cargo.toml crates/strongroom-common/
# Cargo wants the manifest of every package. The sandbox itself is never copied, so it cannot get in.
COPY crates/strongroom-dev/Cargo.toml crates/strongroom-dev/
RUN mkdir -p src benches/ratios migrations crates/strongroom-common/src crates/strongroom-dev/src \
 && echo 'fn main() {}' | tee src/main.rs benches/ratios/main.rs >/dev/null \
 && touch src/lib.rs crates/strongroom-common/src/lib.rs crates/strongroom-dev/src/lib.rs \
 && cargo auditable build --release --locked --no-default-features --features aws-kms --bin strongroom \
 && rm -rf src benches crates/strongroom-common/src

COPY .sqlx .sqlx
COPY migrations migrations
COPY crates/strongroom-common crates/strongroom-common
COPY src src
# Newer than what the layer above built, whatever times the checkout gave the files.
RUN mkdir -p benches/ratios && echo 'fn main() {}' > benches/ratios/main.rs \
 && find src crates -name '*.rs' -exec touch {} + \
 && cargo auditable build --release --locked --no-default-features --features aws-kms --bin strongroom
COPY scripts/image-root scripts/image-root
RUN scripts/image-root target/release/strongroom /image
# The licences of all dependencies, if `cargo about` has written them: the release workflow does.
COPY LICENSE THIRD-PARTY.htm[l] /image/usr/share/doc/strongroom/

FROM scratch
COPY --from=build /image /
LABEL org.opencontainers.image.title="Strongroom" \
      org.opencontainers.image.description="The service behind a \"connect your bank\" button: exchanges, keeps and revokes bank tokens" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="scratch"
USER 10001:10001
# In a container nobody reaches loopback from outside. The metrics are for the inner network alone:
# publish 8080 only.
ENV PATH=/usr/local/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    STRONGROOM_LISTEN=0.0.0.0:8080 \
    STRONGROOM_METRICS_LISTEN=0.0.0.0:9090
EXPOSE 8080 9090
# Alive, not ready: a container is not restarted because its database is away.
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 \
    CMD ["strongroom", "health", "--live"]
# SIGTERM drains: calls to Dapi that are under way end, which may take STRONGROOM_SHUTDOWN_GRACE
# (140 s). Whatever stops the container has to wait longer than that: `docker stop -t 150`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["strongroom"]
CMD ["serve"]
