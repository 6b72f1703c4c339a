# Built in one stage, run from another that holds no compiler, no sources and no development packages.
FROM node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc tsconfig.json tsconfig.build.json ./
COPY protocol protocol
COPY core core
COPY db db
COPY operations operations
COPY api api
COPY workers workers
COPY runtime runtime
COPY simulator simulator
COPY cli cli
# "prepare" builds dist/. The image needs no embedded Postgres: it has a server of its own.
RUN npm ci && npm prune --omit=dev --omit=optional

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build --chown=root:root /build/package.json ./
COPY --from=build --chown=root:root /build/node_modules node_modules
COPY --from=build --chown=root:root /build/dist dist
RUN ln -s /app/dist/cli/main.js /usr/local/bin/latchkey
USER node
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "/app/dist/cli/main.js"]
CMD ["start", "api"]
