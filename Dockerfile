# rtfuse for processors: no torch, no compiler, no root. docs/container.md says how to build and run it.
FROM docker.io/library/debian:trixie-slim AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
RUN python3 -m venv /app
COPY requirements/demo.txt /src/requirements/
# The lock also has what builds the package, and pygame-ce for the window of `rtfuse view`: neither stays.
RUN --mount=type=cache,target=/root/.cache/pip \
    /app/bin/pip install --require-hashes --no-deps -r /src/requirements/demo.txt
COPY . /src
RUN /app/bin/pip install --no-deps --no-build-isolation /src \
    && /app/bin/pip uninstall --yes pygame-ce setuptools pip

FROM python
# Group video (44 in Debian and Ubuntu) may open cameras.
RUN useradd --uid 1000 --groups video --create-home --home-dir /var/lib/rtfuse --shell /usr/sbin/nologin rtfuse \
    && install -d -o rtfuse -g rtfuse -m 700 /var/cache/rtfuse
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH XDG_CACHE_HOME=/var/cache/rtfuse
USER rtfuse
WORKDIR /var/lib/rtfuse
ENTRYPOINT ["rtfuse"]
CMD ["--help"]
