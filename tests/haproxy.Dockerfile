# Debian's HAProxy, for the tests of examples/haproxy.
FROM debian:bookworm-slim
RUN apt-get -q -o APT::Update::Error-Mode=any update && \
    apt-get -qy install --no-install-recommends haproxy && \
    rm -rf /var/lib/apt/lists/*
USER haproxy
ENTRYPOINT ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
