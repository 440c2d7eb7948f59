# The server, without the embedded stores: it is told where PostgreSQL and Redis are.
#
#     docker build -t inventory-server .
#     docker run -e INVENTORY_DATABASE_URL=postgresql://… -e INVENTORY_REDIS_URL=redis://… -p 50051:50051 inventory-server

ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/inventory
WORKDIR /source
# Dependencies change less often than the source: an empty package of the same name brings them, in a layer of their own.
COPY pyproject.toml README.md ./
RUN mkdir -p src/inventory_client src/inventory_server \
    && touch src/inventory_client/__init__.py src/inventory_server/__init__.py \
    && /opt/inventory/bin/pip install '.[server]' \
    && /opt/inventory/bin/pip uninstall --yes inventory-reservation
COPY src src
RUN /opt/inventory/bin/pip install --no-deps . \
    && /opt/inventory/bin/pip uninstall --yes pip \
    && /opt/inventory/bin/python -m compileall -q /opt/inventory

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="inventory-server" \
      org.opencontainers.image.description="Reserves stock for orders and never sells what a shop does not have" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/inventory /opt/inventory
ENV PATH=/opt/inventory/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INVENTORY_LISTEN=0.0.0.0:50051 \
    INVENTORY_LOG_FORMAT=json
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
# Of the process alone: who restarts what is unhealthy would not bring PostgreSQL back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["inventory-server", "healthcheck", "--service", "liveness"]
ENTRYPOINT ["inventory-server"]
CMD ["serve"]
