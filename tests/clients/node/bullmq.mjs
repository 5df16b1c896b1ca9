// BullMQ with its worker at one node and its queue at another: node bullmq.mjs HOST:PORT HOST:PORT
//
// For each line `life` on standard input it leads one life of a queue: it prints `wrote SECONDS` for jobs that were taken, with when they
// began to be added, `keeps ID` of one that stays, and `ok` at the end. For `look ID` it prints the state and the result of such a job. It ends
// with standard input, or at the first answer that is wrong.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";

const [working, asking] = process.argv.slice(2).map((address) => {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)), db: 15 };
});
const PATIENCE = 30_000;
const name = `queue-${process.pid}`;
// What ran, in order.
let ran = [];

const worker = new Worker(
  name,
  async (job) => {
    ran.push({ id: job.id, name: job.name, at: Date.now() });
    if (job.name === "fails twice" && job.attemptsMade < 2) throw new Error(`attempt ${job.attemptsMade}`);
    if (job.name === "breaks") throw new Error("déjà vu");
    if (job.name === "parent") return Object.values(await job.getChildrenValues()).reduce((sum, value) => sum + value, 0);
    await job.updateProgress(50);
    return job.data.value * 2;
  },
  { connection: working },
);
const queue = new Queue(name, { connection: asking, defaultJobOptions: { removeOnComplete: 10_000, removeOnFail: 500 } });
const events = new QueueEvents(name, { connection: asking });
const flows = new FlowProducer({ connection: asking });
// They connect again by themselves.
for (const each of [worker, queue, events, flows]) each.on("error", () => {});
await Promise.all([worker.waitUntilReady(), queue.waitUntilReady(), events.waitUntilReady()]);

const runs = (job) => ran.filter(({ id }) => id === job.id).length;

async function written(write) {
  const began = Date.now() / 1000;
  const given = await write;
  console.log(`wrote ${began}`);
  return given;
}

async function life() {
  ran = [];
  const jobs = await written(queue.addBulk([1, 2, 3].map((value) => ({ name: "plain", data: { value } }))));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, PATIENCE)));
  assert.deepEqual(results, [2, 4, 6]);
  for (const job of jobs) assert.equal(runs(job), 1, "a job runs once");
  console.log(`keeps ${jobs[2].id}`);

  const added = Date.now();
  const later = await written(queue.add("later", { value: 5 }, { delay: 200 }));
  assert.equal(await later.waitUntilFinished(events, PATIENCE), 10);
  assert.ok(ran.find(({ id }) => id === later.id).at >= added + 200, "a delayed job runs when it is due");

  const again = await written(
    queue.add("fails twice", { value: 4 }, { attempts: 3, backoff: { type: "fixed", delay: 20 } }),
  );
  assert.equal(await again.waitUntilFinished(events, PATIENCE), 8);
  assert.equal(runs(again), 3);
  const broken = await written(queue.add("breaks", {}));
  await assert.rejects(broken.waitUntilFinished(events, PATIENCE), /déjà vu/);
  assert.equal(await broken.getState(), "failed");

  // By priority, when the queue goes on; one that is known is not added twice.
  await written(queue.pause());
  const [low, high, middle] = await queue.addBulk([9, 1, 5].map((priority) => ({ name: `p${priority}`, data: { value: priority }, opts: { priority } })));
  const first = await queue.add("once", { value: 1 }, { jobId: `once-${added}` });
  await queue.add("once", { value: 2 }, { jobId: `once-${added}` });
  assert.deepEqual((await queue.getPrioritized()).map((job) => job.name), ["p1", "p5", "p9"]);
  await written(queue.resume());
  await Promise.all([low, high, middle, first].map((job) => job.waitUntilFinished(events, PATIENCE)));
  const order = ran.map((run) => run.name).filter((run) => /^p\d|once/.test(run));
  assert.deepEqual(order, ["once", "p1", "p5", "p9"]);

  const flow = await flows.add({
    name: "parent",
    queueName: name,
    children: [1, 2].map((value) => ({ name: "child", queueName: name, data: { value } })),
  });
  assert.equal(await flow.job.waitUntilFinished(events, PATIENCE), 6);

  // A schedule, and its end.
  await queue.upsertJobScheduler("every", { every: 100 }, { name: "tick", data: { value: 1 } });
  const end = Date.now() + PATIENCE;
  while (ran.filter((run) => run.name === "tick").length < 2) {
    assert.ok(Date.now() < end, "the schedule runs");
    await new Promise((resolve) => events.once("completed", resolve));
  }
  assert.equal(await queue.removeJobScheduler("every"), true);
  // One that was due already still runs.
  const left = () => queue.getJobCountByTypes("waiting", "prioritized", "waiting-children", "paused", "active");
  while ((await left()) > 0) assert.ok(Date.now() < end, "all jobs run");
}

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [word, id] = line.split(" ");
  if (word === "look") {
    const job = await queue.getJob(id);
    console.log(`${await job.getState()} ${job.returnvalue}`);
  } else {
    assert.equal(word, "life");
    await life();
    console.log("ok");
  }
}
process.exit(0);
