# One static program, and nothing else in the image.
#
#     docker build -t kometa-authd .
#
# compiles it. Where a static binary is at hand, it is taken as it is, and
# neither another image nor a network is needed:
#
#     docker build --build-arg BINARY=prebuilt -t kometa-authd .
#
# takes dist/amd64/kometa-authd, or that of the platform that is built for.

ARG BINARY=compiled

FROM rust:1-slim-bookworm AS compiled
WORKDIR /source
COPY . .
# The target is named so that build scripts and macros are not made static, too.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && mv target/*/release/kometa-authd /kometa-authd

FROM scratch AS prebuilt
ARG TARGETARCH
COPY --chmod=755 dist/${TARGETARCH}/kometa-authd /kometa-authd

# hadolint ignore=DL3006
FROM ${BINARY} AS binary

FROM scratch
LABEL org.opencontainers.image.title="kometa-authd" \
      org.opencontainers.image.description="Keeps the Trakt and MyAnimeList tokens in Kometa's config.yml valid" \
      org.opencontainers.image.licenses="MIT"
COPY --from=binary /kometa-authd /kometa-authd
# Kometa's own place for it: mount its folder at /config.
ENV KOMETA_CONFIG=/config/config.yml
# Any other user works as well: `user:` in a compose file, `--user` on the command line.
USER 1000:1000
STOPSIGNAL SIGTERM
# Reads files only: no network, no shell. Unhealthy is a token that has expired or is about to, one that waits
# for a person, and a program that does not do its work.
HEALTHCHECK --interval=30s --timeout=10s --start-period=1m CMD ["/kometa-authd", "healthcheck"]
ENTRYPOINT ["/kometa-authd"]
CMD ["run"]
