# syntax=docker/dockerfile:1
# What these commands do is tested without Docker: test/integration/image.test.ts plays them in a clean folder.

FROM node:24.21-trixie-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY prisma.config.ts ./
COPY prisma ./prisma
COPY providers ./providers
COPY issuers ./issuers
COPY scripts ./scripts
COPY src ./src
COPY bin ./bin
# The bundle, what V8 makes of it, and a migrated folder for the embedded database: a start writes none of them.
RUN node_modules/.bin/prisma generate && node scripts/build.ts
# A link of our own, so that `docker compose exec broker freshet …` finds the command.
RUN chmod 755 bin bin/*.cjs && ln -s freshet.cjs bin/freshet
# An empty folder, for the final stage to take as the volumes' first content.
RUN mkdir -p empty

FROM node:24.21-trixie-slim AS production
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY scripts ./scripts
RUN npm ci --omit=dev --omit=optional --ignore-scripts && node scripts/prune.ts && node scripts/sbom.ts > sbom.json

FROM node:24.21-trixie-slim
LABEL org.opencontainers.image.title="Freshet" \
      org.opencontainers.image.description="Self-hosted OAuth token broker" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /app
ENV NODE_ENV=production \
    HOST=0.0.0.0 \
    DATA_DIR=/data \
    PATH=/app/bin:$PATH
COPY --from=production /app/node_modules ./node_modules
COPY --from=build /app/bin ./bin
# The modes are set here, so that a checkout under a strict umask gives an image that its user can read.
COPY --chmod=755 package.json package-lock.json ./
COPY --from=production --chmod=755 /app/sbom.json ./
COPY --chmod=755 prisma/migrations ./prisma/migrations
COPY --chmod=755 providers ./providers
COPY --chmod=755 issuers ./issuers
COPY --chmod=755 src ./src
COPY --from=build --chmod=755 /app/src/generated ./src/generated
COPY --from=build --chmod=755 /app/build ./build
COPY --chmod=755 deploy/secrets.ts ./deploy/
# 1000 is the base image's own user `node`. The broker writes nothing but DATA_DIR: the root filesystem can be read-only.
COPY --from=build --chown=1000:1000 --chmod=700 /app/empty /data
# Where docker-compose.yml mounts the volumes that the service `secrets` fills. Postgres and Redis read theirs as users of their own.
COPY --from=build --chown=1000:1000 --chmod=700 /app/empty /secrets/broker
COPY --from=build --chown=1000:1000 --chmod=755 /app/empty /secrets/postgres
COPY --from=build --chown=1000:1000 --chmod=755 /app/empty /secrets/redis
USER 1000:1000
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 8080}/livez`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# No core dump, which would hold keys and tokens, and no debugger, which anybody who may send SIGUSR1 could open.
# And 16 MB for each half of the new objects: Node would take several times as much (docs/decisions/0042-small-connections-in-memory.md).
CMD ["sh", "-c", "ulimit -c 0; exec node --disable-sigusr1 --max-semi-space-size=16 bin/broker.cjs"]
