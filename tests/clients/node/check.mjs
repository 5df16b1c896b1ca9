// ioredis and node-redis with their default settings. Called as `node check.mjs HOST:PORT [HOST:PORT ...]`; several addresses are members
// of one Plenary cluster.
import assert from "node:assert/strict";
import Redis from "ioredis";
import { createClient, RESP_TYPES } from "redis";

const addresses = process.argv.slice(2).map((address) => {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
});
const binary = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
const near = (left, most) => assert.ok(left > most - 3 && left <= most, `${left} is not just below ${most}`);
const fails = (promise, text) =>
  promise.then(
    (answer) => assert.fail(`answered ${answer}, wanted a refusal with ${text}`),
    (error) => assert.match(error.message, text),
  );

async function ioredis() {
  const r = new Redis({ ...addresses[0], db: 10 });
  await r.flushdb();
  assert.equal(await r.ping(), "PONG");
  assert.match(await r.info(), /loading:0/);
  assert.equal(await r.set("k", "v"), "OK");
  assert.equal(await r.set("k", "w", "NX"), null);
  assert.equal(await r.set("k", "w", "EX", 100, "XX"), "OK");
  near(await r.ttl("k"), 100);
  assert.equal(await r.set("k", "x", "KEEPTTL", "GET"), "w");
  near(await r.ttl("k"), 100);
  const at = Math.floor(Date.now() / 1000) + 500;
  assert.equal(await r.set("k", "x", "EXAT", at), "OK");
  assert.equal(await r.expiretime("k"), at);
  assert.equal(await r.set("k", "x", "PXAT", at * 1000 + 1), "OK");
  assert.equal(await r.pexpiretime("k"), at * 1000 + 1);
  assert.equal(await r.persist("k"), 1);
  assert.equal(await r.getex("k", "PX", 90_000), "x");
  near(await r.ttl("k"), 90);
  assert.equal(await r.expire("k", 10, "GT"), 0);
  assert.equal(await r.expire("k", 10, "LT"), 1);
  assert.equal(await r.getdel("k"), "x");
  assert.equal(await r.get("k"), null);
  await r.setBuffer(binary, binary);
  assert.deepEqual(await r.getBuffer(binary), binary);
  assert.equal(await r.incrby("n", 41), 41);
  assert.equal(await r.incrbyfloat("n", 0.5), "41.5");
  await r.mset({ a: "1", b: "2" });
  assert.deepEqual(await r.mget("a", "none", "b"), ["1", null, "2"]);
  assert.equal(await r.hset("h", { f: "1", g: "2" }), 2);
  assert.deepEqual(await r.hgetall("h"), { f: "1", g: "2" });
  assert.deepEqual(await r.hmget("h", "g", "none"), ["2", null]);
  assert.equal(await r.hincrby("h", "f", 4), 5);
  assert.equal(await r.hdel("h", "f", "g"), 2);
  assert.equal(await r.exists("h"), 0);
  const pipeline = r.pipeline();
  for (let i = 0; i < 1000; i++) pipeline.set(`key:${i}`, i);
  pipeline.get("key:999").incr("binary").hget("a", "f");
  const answers = await pipeline.exec();
  assert.deepEqual(answers.slice(0, 1000), Array(1000).fill([null, "OK"]));
  assert.deepEqual(answers.slice(1000, 1002), [[null, "999"], [null, 1]]);
  assert.match(answers[1002][0].message, /WRONGTYPE/);
  const found = new Set();
  for await (const keys of r.scanStream({ match: "key:*", count: 13 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 1000);
  await r.hset("big", Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`field:${i}`, String(i)])));
  const fields = new Map();
  for await (const pairs of r.hscanStream("big", { count: 40 }))
    for (let i = 0; i < pairs.length; i += 2) fields.set(pairs[i], pairs[i + 1]);
  assert.equal(fields.size, 1500);
  for (const [field, value] of fields) assert.equal(field, `field:${value}`);
  await fails(r.call("NONSENSE"), /unknown command/);
  await fails(r.call("GET"), /wrong number of arguments/);
  for (const [index, address] of addresses.entries()) {
    if (index === 0) continue;
    const other = new Redis({ ...address, db: 10 });
    for (let turn = 0; turn < 20; turn++) {
      await r.set("across", turn);
      await other.call("PLENARY", "WAITFOR", String(await r.call("PLENARY", "TOKEN")));
      assert.equal(await other.get("across"), String(turn));
    }
    await other.quit();
  }
  await r.flushdb();
  await r.quit();
}

async function nodeRedis(RESP) {
  const client = createClient({ socket: addresses[0], database: 11, ...(RESP ? { RESP } : {}) });
  const unexpected = [];
  client.on("error", (error) => unexpected.push(error));
  const r = await client.connect();
  await r.flushDb();
  assert.equal(await r.ping(), "PONG");
  assert.equal(await r.set("k", "v"), "OK");
  assert.equal(await r.set("k", "w", { condition: "NX" }), null);
  assert.equal(await r.set("k", "w", { condition: "XX", expiration: { type: "EX", value: 100 } }), "OK");
  near(await r.ttl("k"), 100);
  assert.equal(await r.set("k", "x", { expiration: "KEEPTTL", GET: true }), "w");
  near(await r.ttl("k"), 100);
  const at = Math.floor(Date.now() / 1000) + 500;
  assert.equal(await r.set("k", "x", { expiration: { type: "EXAT", value: at } }), "OK");
  assert.equal(await r.expireTime("k"), at);
  assert.equal(await r.getEx("k", { type: "PX", value: 90_000 }), "x");
  near(await r.ttl("k"), 90);
  assert.equal(await r.expire("k", 10, "LT"), 1);
  assert.equal(await r.getDel("k"), "x");
  assert.equal(await r.get("k"), null);
  const buffers = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  assert.equal(await r.set(binary, binary), "OK");
  assert.deepEqual(await buffers.get(binary), binary);
  assert.equal(await r.incrBy("n", 42), 42);
  await r.mSet({ a: "1", b: "2" });
  assert.deepEqual(await r.mGet(["a", "none", "b"]), ["1", null, "2"]);
  assert.equal(await r.hSet("h", { f: "1", g: "2" }), 2);
  assert.deepEqual({ ...(await r.hGetAll("h")) }, { f: "1", g: "2" });
  assert.equal(await r.hGet("h", "none"), null);
  assert.equal(await r.hIncrBy("h", "f", 4), 5);
  // Sent in one tick, so they travel as one pipeline.
  const sets = await Promise.all(Array.from({ length: 1000 }, (_, i) => r.set(`key:${i}`, String(i))));
  assert.deepEqual(new Set(sets), new Set(["OK"]));
  const found = new Set();
  for await (const keys of r.scanIterator({ MATCH: "key:*", COUNT: 13 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 1000);
  const fields = new Map();
  await r.hSet("big", Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`field:${i}`, String(i)])));
  for await (const entries of r.hScanIterator("big", { COUNT: 40 }))
    for (const { field, value } of entries) fields.set(field, value);
  assert.equal(fields.size, 1500);
  await fails(r.incr("h"), /WRONGTYPE/);
  await fails(r.sendCommand(["NONSENSE"]), /unknown command/);
  await r.flushDb();
  await r.close();
  assert.deepEqual(unexpected, []);
}

await ioredis();
console.log("ioredis: ok");
await nodeRedis();
await nodeRedis(2);
await nodeRedis(3);
console.log("node-redis: ok");
