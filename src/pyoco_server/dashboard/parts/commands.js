// What is shown, as commands of pyoco-client.
const PLAIN = /^[A-Za-z0-9_./:=@,-]+$/;

function quoted(text) {
  return PLAIN.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Write a command; options that are empty are left out. */
export function clientCommand(words, options = {}) {
  const given = Object.entries(options).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const parts = [...words, ...given.flatMap(([name, value]) => [`--${name}`, quoted(String(value))])];
  return `pyoco-client --server ${quoted(location.origin)} ${parts.join(" ")}`;
}
