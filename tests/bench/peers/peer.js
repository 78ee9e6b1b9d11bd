// An SSH client and server of ssh2 that speak the lines of tests/bench/ends.
//
//     node peer.js client|server SETTING
"use strict";

const fs = require("fs");
const net = require("net");
const path = require("path");
const readline = require("readline");
const { Client, Server, utils } = require("ssh2");

const BLOCK = Buffer.alloc(32 * 1024);
const [role, given] = process.argv.slice(2);
const setting = JSON.parse(given);

const key = (name) => fs.readFileSync(path.join(setting.keys, name));
const say = (words) => fs.writeSync(1, JSON.stringify(words) + "\n");

const queue = [];
const waiting = [];
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const next = waiting.shift();
  if (next) next(line);
  else queue.push(line);
}).on("close", () => process.exit(0));
const hear = () => new Promise((done) => (queue.length ? done(queue.shift()) : waiting.push(done)));

function state() {
  const used = process.cpuUsage();
  return {
    cpu: (used.user + used.system) / 1e6,
    wall: Number(process.hrtime.bigint()) / 1e9,
    memory: process.memoryUsage.rss(),
  };
}

function algorithms() {
  const chosen = { kex: [setting.kex], cipher: [setting.cipher], compress: ["none"] };
  if (setting.mac) chosen.hmac = [setting.mac];
  return chosen;
}

// Writes so many bytes, as fast as the other end takes them, and calls back when all are written.
function write(stream, left, done) {
  const more = () => {
    while (left > 0) {
      const size = Math.min(left, BLOCK.length);
      left -= size;
      if (!stream.write(size === BLOCK.length ? BLOCK : BLOCK.subarray(0, size))) {
        stream.once("drain", more);
        return;
      }
    }
    done();
  };
  more();
}

function run(stream, command) {
  const [word, amount] = command.split(" ");
  const end = () => {
    stream.exit(0);
    stream.end();
  };
  if (word === "download") write(stream, Number(amount), end);
  else if (word === "upload") stream.on("data", () => {}).on("end", end);
  else if (word === "true") end();
  else stream.on("close", () => {});
}

async function serve() {
  const user = utils.parseKey(key("user_key.pub")).getPublicSSH();
  const server = new Server({ hostKeys: [key("host_key")], algorithms: algorithms() }, (client) => {
    client.on("error", () => {});
    client.on("authentication", (context) => {
      if (context.method !== "publickey" || !context.key.data.equals(user)) return context.reject(["publickey"]);
      const theirs = utils.parseKey(key("user_key.pub"));
      if (context.signature && theirs.verify(context.blob, context.signature, context.hashAlgo) !== true)
        return context.reject();
      return context.accept();
    });
    client.on("session", (accept) => {
      accept().on("exec", (granted, refused, information) => run(granted(), information.command));
    });
  });
  const listener = net.createServer((socket) => {
    socket.setNoDelay(true);
    server.injectSocket(socket);
  });
  listener.listen(0, "127.0.0.1", () => say({ port: listener.address().port }));
  for (;;) {
    await hear();
    say(state());
  }
}

const USER_KEY = role === "client" ? key("user_key") : null;
const HOST_KEY = role === "client" ? utils.parseKey(key("host_key.pub")).getPublicSSH() : null;

function login() {
  return new Promise((done, failed) => {
    const client = new Client();
    const sock = net.connect({ host: "127.0.0.1", port: setting.port, noDelay: true });
    client.on("ready", () => done(client)).on("error", failed);
    client.connect({
      sock,
      username: setting.user,
      privateKey: USER_KEY,
      hostVerifier: (offered) => offered.equals(HOST_KEY),
      algorithms: algorithms(),
    });
  });
}

function ended(client) {
  return new Promise((done) => {
    client.on("close", done);
    client.end();
  });
}

function start(client, command) {
  return new Promise((done, failed) => client.exec(command, (error, stream) => (error ? failed(error) : done(stream))));
}

const closed = (stream) => new Promise((done) => stream.on("close", done));

async function command(client, text) {
  const stream = await start(client, text);
  stream.resume();
  await closed(stream);
}

const WORKS = {
  async download(client, amount) {
    const stream = await start(client, `download ${amount}`);
    let count = 0;
    stream.on("data", (data) => (count += data.length));
    await closed(stream);
    if (count !== amount) throw new Error(`${count} bytes of ${amount} have come`);
  },
  async upload(client, amount) {
    const stream = await start(client, "upload");
    stream.resume();
    const over = closed(stream);
    write(stream, amount, () => stream.end());
    await over;
  },
  async exec(client, amount) {
    for (let each = 0; each < amount; each++) await command(client, "true");
  },
  async exec50(client, amount) {
    for (let left = amount; left > 0; left -= 50)
      await Promise.all(Array.from({ length: 50 }, () => command(client, "true")));
  },
};

async function timed(work) {
  say({ ready: true });
  await hear();
  const before = state();
  await work();
  const after = state();
  say({ cpu: after.cpu - before.cpu, wall: after.wall - before.wall, memory: after.memory - before.memory });
  await hear();
}

async function work(job) {
  if (job.work === "connect") {
    const some = async (count) => {
      for (let each = 0; each < count; each++) await ended(await login());
    };
    await some(job.warming);
    return timed(() => some(job.amount));
  }
  if (job.work === "connections") {
    const held = [];
    const fill = async (count) => {
      while (held.length < count) held.push(await login());
    };
    await fill(job.already);
    await timed(() => fill(job.amount));
    for (const client of held) await ended(client);
    return undefined;
  }
  const client = await login();
  if (job.work === "channels") {
    const held = [];
    const fill = async (count) => {
      while (held.length < count) held.push(await start(client, "hold"));
    };
    await fill(job.already);
    await timed(() => fill(job.amount));
  } else {
    await WORKS[job.work](client, job.warming);
    await timed(() => WORKS[job.work](client, job.amount));
  }
  return ended(client);
}

async function drive() {
  for (;;) {
    await work(JSON.parse(await hear()));
    say({ over: true });
  }
}

(role === "server" ? serve() : drive()).catch((error) => {
  console.error(error);
  process.exit(1);
});
