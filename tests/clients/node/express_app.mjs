// An Express application with express-session and connect-redis on node-redis: node express_app.mjs redis://HOST:PORT/DATABASE
//
// Speaks as `python/http_stores.py` says. A session is saved before it is answered, as express-session's README tells: by itself it answers
// first and tells nobody when saving failed.
import express from "express";
import session from "express-session";
import { RedisStore } from "connect-redis";
import { createClient } from "redis";

// A copy whose node is gone says so at once, so that users are sent to another one: by itself node-redis keeps each command for up to 5 s
// while it has no connection.
const client = createClient({ url: process.argv[2], disableOfflineQueue: true });
// It reconnects by itself as long as somebody listens to its errors; each command tells its own.
client.on("error", () => {});
await client.connect();

const app = express();
// Otherwise Express prints what fails after an answer has gone out.
app.set("env", "test");
app.use(express.json());
app.use(session({ store: new RedisStore({ client }), secret: "known to all instances", resave: false, saveUninitialized: false }));

const items = (request) => {
  const { cookie, ...rest } = request.session;
  return rest;
};
const saved = (request, response, next, answer) =>
  request.session.save((error) => (error ? next(error) : response.json(answer)));

app.get("/session", (request, response) => response.json({ items: items(request) }));
app.put("/session", (request, response, next) => {
  const before = items(request);
  Object.assign(request.session, request.body);
  saved(request, response, next, { items: before });
});
app.delete("/session", (request, response, next) => {
  const before = items(request);
  request.session.destroy((error) => (error ? next(error) : response.clearCookie("connect.sid").json({ items: before })));
});
app.post("/renew", (request, response, next) => {
  const kept = items(request);
  request.session.regenerate((error) => {
    if (error) return next(error);
    Object.assign(request.session, kept);
    saved(request, response, next, {});
  });
});
app.post("/expire", (request, response, next) => {
  request.session.cookie.maxAge = 1000;
  saved(request, response, next, {});
});
app.use((error, _request, response, _next) => {
  // express-session touches a session when its answer has gone out.
  if (response.headersSent) return;
  response.status(500).json({ error: [error.constructor.name, error.code, error.message].filter(Boolean).join(" ") });
});

const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
// Whoever started it holds the other end.
process.stdin.resume().on("end", () => process.exit(0));
