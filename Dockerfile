# syntax=docker/dockerfile:1
# The released image, without the simulator: docker build .
# The image for development clusters, with it:  docker build --target development .
# Cargo's registry and target folder are cache mounts, so that a change of the source builds only the source.

# Debian's libc, since the profile that optimises a release build fits no other.
FROM docker.io/library/rust:1.95.0-trixie AS toolchain
WORKDIR /src
# The image's own toolchain: rust-toolchain.toml would fetch clippy and rustfmt, too.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .

FROM toolchain AS build
RUN --mount=type=cache,id=registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target,target=/src/target \
    cargo build --locked --release --no-default-features \
    && tools/image-files.sh target/release/participant-gateway /out

FROM toolchain AS build-development
RUN --mount=type=cache,id=registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target,target=/src/target \
    cargo build --locked --release \
    && tools/image-files.sh target/release/participant-gateway /out

# Nothing but the program, its libraries and the CAs.
FROM scratch AS root
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 50051 9090
ENTRYPOINT ["/participant-gateway"]
CMD ["--help"]
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Participant Gateway" \
      org.opencontainers.image.description="A gRPC gateway to Amazon Connect's CreateParticipant" \
      org.opencontainers.image.source="https://github.com/participant-gateway/participant-gateway" \
      org.opencontainers.image.documentation="https://github.com/participant-gateway/participant-gateway/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

FROM root AS development
COPY --from=build-development /out /

FROM root AS release
COPY --from=build /out /
