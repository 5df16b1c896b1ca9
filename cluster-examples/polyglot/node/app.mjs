// The Node server: node:http and ioredis. node app.mjs HOST:PORT; what it answers, and how the session is kept, stands in ../README.md.
//
// Prints the port that it listens on, and ends when its standard input does.
import { createHmac, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { Redis } from "ioredis";

// Milliseconds without use after which a session ends.
const IDLE_MS = 20 * 60 * 1000;
// Times that a change is tried when others change the session meanwhile.
const ATTEMPTS = 32;
// Bytes of a form.
const FORM_MAX = 16 * 1024;

const [host, port] = process.argv[2].split(":");
const cache = new Redis({ host, port: Number(port) });
// ioredis connects again by itself; each command tells its own errors.
cache.on("error", () => {});

// Where the session with this id stands. Only a keyed hash of the id is stored: who reads the cache cannot log in.
const keyOf = (id) => "session:" + createHmac("sha256", process.env.SESSION_ID_KEY).update(id).digest("hex").slice(0, 32);

// The id in the cookie, if it is one.
const sessionId = (request) => /(?:^|; )sid=([0-9a-f]{32})(?:;|$)/.exec(request.headers.cookie ?? "")?.[1];

// What RESP2 and RESP3 have for a map, as a Map.
const toMap = (reply) => {
  if (reply instanceof Map) return reply;
  if (!Array.isArray(reply)) return new Map(Object.entries(reply));
  return new Map(Array.from({ length: reply.length / 2 }, (_, i) => [reply[2 * i], reply[2 * i + 1]]));
};

// The key, the version and the items of the request's session; undefined if nobody is logged in, or not any more.
//
// Another server may have changed it through another node a moment ago: it is read as of now, in the round trip of the read itself.
const load = async (request) => {
  const id = sessionId(request);
  if (id === undefined) return undefined;
  const [, [error, reply]] = await cache.pipeline().call("PLENARY", "FRESH", "linearizable").call("SESSION.LOAD", keyOf(id)).exec();
  if (error) throw error;
  if (reply === null) return undefined;
  const loaded = toMap(reply);
  const items = Object.fromEntries([...toMap(loaded.get("items"))].map(([name, json]) => [name, JSON.parse(json)]));
  return { key: keyOf(id), version: loaded.get("version"), items };
};

const form = async (request) => {
  let text = "";
  for await (const part of request) {
    text += part;
    if (text.length > FORM_MAX) throw new Error("the form is too long");
  }
  return new URLSearchParams(text);
};

const pages = {
  "GET /": async (request) => {
    const session = await load(request);
    if (!session) return [401];
    const { user, basket = [] } = session.items;
    return [200, JSON.stringify({ server: "node", user, basket })];
  },

  // A login gets a fresh id, against session fixation; what was in the basket stays.
  "POST /login": async (request) => {
    const [id, user, session] = [randomBytes(16).toString("hex"), (await form(request)).get("user"), await load(request)];
    const key = keyOf(id);
    if (session) {
      const answers = await cache
        .multi()
        .call("SESSION.RENAME", session.key, key)
        .call("SESSION.SAVE", key, "*", "OWNER", user, "SET", 1, "user", JSON.stringify(user))
        .exec();
      for (const [error] of answers) if (error) throw error;
    } else {
      const items = ["user", JSON.stringify(user), "basket", "[]"];
      await cache.call("SESSION.CREATE", key, IDLE_MS, "OWNER", user, "ITEMS", items.length / 2, ...items);
    }
    return [200, "welcome\n", `sid=${id}; Path=/; HttpOnly; SameSite=Lax`];
  },

  // A change is saved only on the version that was read: two servers that change the basket at once both get what they put in.
  "POST /basket": async (request) => {
    const item = (await form(request)).get("item");
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const session = await load(request);
      if (!session) return [401];
      const basket = [...(session.items.basket ?? []), item];
      try {
        await cache.call("SESSION.SAVE", session.key, session.version, "SET", 1, "basket", JSON.stringify(basket));
        return [200, "it is in\n"];
      } catch (error) {
        if (error.message.startsWith("NOSESSION")) return [401];
        if (!error.message.startsWith("STALESESSION")) throw error;
      }
    }
    return [409];
  },

  "POST /logout": async (request) => {
    const id = sessionId(request);
    if (id !== undefined) await cache.call("SESSION.END", keyOf(id));
    return [200, "good bye\n", "sid=; Path=/; Max-Age=0"];
  },
};

const server = createServer(async (request, response) => {
  let [status, body, cookie] = [503];
  try {
    const page = pages[`${request.method} ${request.url}`];
    [status, body, cookie] = page ? await page(request) : [404];
  } catch (error) {
    // It could not be done; the request may be sent again.
    console.error("node:", error.message);
  }
  if (cookie) response.setHeader("Set-Cookie", cookie);
  response.writeHead(status).end(body);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
// Whoever started it holds the other end.
process.stdin.resume().on("end", () => process.exit(0));
