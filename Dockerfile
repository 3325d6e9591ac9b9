# The base has Python 3.11 or newer as `python3`, with venv, and glibc. Pin it by digest where you release:
#   docker build --build-arg BASE=python:3.13-slim-bookworm@sha256:... .
ARG BASE=python:3.13-slim-bookworm

# A private package index or certificate authority comes as a build secret and leaves no trace in the image:
#   docker build --secret id=pip,src=/etc/pip.conf --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt .
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Two environments: one with pip and the build tools, which stays behind, and the one that is shipped, without pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/kochava-consumer

# The dependencies are a layer of their own: they change less often than the code.
COPY requirements.lock requirements-build.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement requirements-build.lock && \
    /opt/build/bin/pip --python /opt/kochava-consumer/bin/python install \
        --require-hashes --only-binary :all: --requirement requirements.lock

# Nothing is fetched here: the build tools are there, and so are the dependencies.
COPY pyproject.toml README.md LICENSE ./
COPY consumer consumer
COPY schemas schemas
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . && \
    /opt/build/bin/pip --python /opt/kochava-consumer/bin/python install --no-index --no-deps /wheel/*.whl && \
    /opt/kochava-consumer/bin/python -c 'import consumer.app'


FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kochava-consumer" \
      org.opencontainers.image.description="Delivers in-app events from Kafka to Kochava" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/kochava-consumer /opt/kochava-consumer

# PYTHONSAFEPATH: `-m` must not import from the working directory. MALLOC_ARENA_MAX: librdkafka's threads would each
# get a heap of their own. HOME: the user has none, and a read-only root has only /tmp.
ENV PATH=/opt/kochava-consumer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    MALLOC_ARENA_MAX=2 \
    HOME=/tmp
WORKDIR /
EXPOSE 9464

# A number, not a name: runAsNonRoot can only judge a number.
USER 65532:65532

# Exec form: the process is PID 1 and gets SIGTERM itself. Python starts no other processes, so no init is needed.
ENTRYPOINT ["python", "-m", "consumer"]
CMD ["run"]
