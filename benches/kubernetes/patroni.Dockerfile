# Patroni beside the very PostgreSQL that podgres runs; made by patroni-image.
ARG BASE
FROM ${BASE}
USER root
RUN apt-get -q update && \
    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends python3 python3-venv && \
    rm -rf /var/lib/apt/lists/*
ARG PATRONI
# A first build has no wheels: it is the one that they are made in, with this Python.
COPY wheels /wheels
RUN python3 -m venv /opt/patroni && \
    { [ -z "$PATRONI" ] || /opt/patroni/bin/pip install -q --no-index --find-links /wheels $PATRONI; }
USER 999:999
ENTRYPOINT ["/opt/patroni/bin/patroni"]
CMD []
HEALTHCHECK NONE
