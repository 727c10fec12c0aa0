// What is shown, as commands of pyoco-client.
import { BASE } from "../base.js";

const PLAIN = /^[A-Za-z0-9_./:=@,-]+$/;

function quoted(text) {
  return PLAIN.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Write a command; options that are empty are left out. */
export function clientCommand(words, options = {}) {
  const given = Object.entries(options).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const parts = [...words, ...given.flatMap(([name, value]) => [`--${name}`, quoted(String(value))])];
  return `pyoco-client --server ${quoted(location.origin + BASE)} ${parts.join(" ")}`;
}

const LOCAL_NATS = "nats://127.0.0.1:4222";

/** Write the command that starts a worker for tags, under a name that is not taken. */
export function workerCommand(natsUrl, tags, taken, name = null) {
  let number = 1;
  while (taken.includes(`${tags}-${number}`)) number += 1;
  const where = natsUrl && natsUrl !== LOCAL_NATS ? ` --nats-url ${quoted(natsUrl)}` : "";
  return `pyoco-worker${where} --tags ${quoted(tags)} --worker-id ${quoted(name ?? `${tags}-${number}`)}`;
}
