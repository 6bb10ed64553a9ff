// The page's words, in the reader's language, and how numbers look in it.
const texts = JSON.parse(document.getElementById("chat-texts").textContent);
const language = document.documentElement.lang || "en";
const whole = new Intl.NumberFormat(language);
const tenths = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export function text(name, values = {}) {
  return texts[name].replace(/\{(\w+)\}/g, (_match, key) => values[key]);
}

export const number = (value) => whole.format(value);
export const decimal = (value) => tenths.format(value);
