// JSON whose numbers can be shown as they were sent. A double changes 9007199254740993 and writes 1.0 as 1. So of each
// number that it would not write the same way the text is kept beside the value, which is an ordinary number all the same.

const SENT = Symbol("numbers as they were sent");
const MARK = `number${Math.random().toString(36).slice(2)}:`; // what no text of others can begin with
const NUMBERS = /-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g;
const MARKED = new RegExp(`"${MARK}([-+.eE\\d]+)"`, "g");

/** Read JSON; throws SyntaxError as JSON.parse does. */
export function read(text) {
  const value = JSON.parse(text); // what is no JSON ends here: below, digits outside of strings are numbers
  const marked = withMarks(text);
  return marked === text ? value : JSON.parse(marked, restored);
}

/** Make texts of the numbers that would not be written the same way. A regular expression for strings runs out of stack. */
function withMarks(text) {
  let marked = "";
  let from = 0;
  for (let begin = text.indexOf('"'); begin >= 0; begin = text.indexOf('"', from)) {
    const end = endOfString(text, begin);
    marked += text.slice(from, begin).replace(NUMBERS, mark) + text.slice(begin, end);
    from = end;
  }
  return marked + text.slice(from).replace(NUMBERS, mark);
}

function endOfString(text, begin) {
  for (let at = text.indexOf('"', begin + 1); ; at = text.indexOf('"', at + 1)) {
    let escapes = at;
    while (text[escapes - 1] === "\\") escapes -= 1;
    if ((at - escapes) % 2 === 0) return at + 1;
  }
}

function mark(number) {
  return String(Number(number)) === number ? number : `"${MARK}${number}"`;
}

function restored(key, value) {
  if (typeof value !== "string" || !value.startsWith(MARK)) return value;
  const text = value.slice(MARK.length);
  (this[SENT] ??= new Map()).set(key, text);
  return Number(text);
}

/** The text of a number of an object or list, as it was sent; null where the number itself says it. */
function sent(holder, key) {
  const text = holder[SENT]?.get(key) ?? null;
  return text !== null && Object.is(Number(text), holder[key]) ? text : null; // a copy may have got another value since
}

/** Write a value that was read, its numbers as they were sent. */
export function written(value, indent = 0) {
  const marking = function (key, item) {
    const text = sent(this, key);
    return text === null ? item : MARK + text;
  };
  return JSON.stringify(value, marking, indent).replace(MARKED, "$1");
}

/** Write one field of an object that was read: a text as it is, all else as JSON. */
export function fieldText(holder, key, indent = 0) {
  const value = holder[key];
  return typeof value === "string" ? value : (sent(holder, key) ?? written(value, indent));
}

/** Write JSON in lines, its numbers as they are in the text; throws SyntaxError. */
export function indented(text) {
  const value = read(text);
  return typeof value === "number" ? text.trim() : written(value, 2);
}
