/** One colour a member, the same everywhere on the page; style.css has them as `who-0` and so on. */

const COLOURS = 6;
/** @type {Map<string, number>} */
const given = new Map();

/** The class of a member's colour. @param {string} id */
export function colourOf(id) {
  let number = given.get(id);
  if (number === undefined) given.set(id, (number = given.size));
  return `who-${number % COLOURS}`;
}

/** Give the members their colours in this order, as far as they have none. @param {string[]} ids */
export function giveColours(ids) {
  for (const id of [...ids].sort()) colourOf(id);
}
