// What the page says, and how it writes numbers and times, in the language of whoever looks at it.
// One catalogue a language: locales/<language>.json. A text is a string, or one string for each plural form.

export const LANGUAGES = { en: 'English', de: 'Deutsch', ja: '日本語', ko: '한국어' };
const STRETCHED = 'en-XA'; // English made 40 % longer, with accents: shows what a longer language would break
const KEPT = 'inspectd.language';

let texts = {};
let plurals = new Intl.PluralRules('en');
export let language = 'en';

// The language that was chosen here, else the first of the browser's that we have, else English.
export function preferred() {
  const asked = new URLSearchParams(location.search).get('lang');
  for (const wanted of [asked, localStorage.getItem(KEPT), ...navigator.languages]) {
    if (wanted === STRETCHED) return STRETCHED;
    const found = wanted?.toLowerCase().split('-')[0];
    if (found in LANGUAGES) return found;
  }
  return 'en';
}

export async function speak(wanted, remember = false) {
  const stretched = wanted === STRETCHED;
  const answer = await fetch(new URL(`./locales/${stretched ? 'en' : wanted}.json`, import.meta.url));
  if (!answer.ok) throw new Error(`the catalogue of ${wanted} is not there: ${answer.status}`);
  texts = await answer.json();
  if (stretched) texts = stretch(texts);
  language = stretched ? 'en' : wanted;
  plurals = new Intl.PluralRules(language);
  formats.clear();
  document.documentElement.lang = language;
  if (remember) localStorage.setItem(KEPT, wanted);
}

function stretch(text) {
  if (typeof text === 'object') {
    return Object.fromEntries(Object.entries(text).map(([key, value]) => [key, stretch(value)]));
  }
  const accents = { a: 'á', e: 'é', i: 'í', o: 'ö', u: 'ü', A: 'Å', E: 'É', I: 'Î', O: 'Ø', U: 'Û' };
  const words = text.split(/(\{\w+\})/);
  const longer = words.map((word, index) => (index % 2 ? word : word.replace(/[aeiou]/gi, (vowel) => accents[vowel])));
  const filling = 'lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam nonumy eirmod tempor invidunt';
  return `${longer.join('')} ${filling.slice(0, Math.ceil(text.length * 0.4))}`.trimEnd();
}

// The text of a key. `values` fill its {places}; `values.count` also chooses the plural form.
export function t(key, values = {}) {
  let text = texts[key];
  if (text === undefined) return key; // seen on the page, and the tests look for it
  if (typeof text === 'object') text = text[plurals.select(values.count)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (place, name) => {
    const value = values[name];
    if (value === undefined) return place;
    return typeof value === 'number' ? number(value) : value;
  });
}

// A word the server says (a state, a reason) in this language; one that the catalogue lacks as it is.
export const word = (kind, name) => texts[`${kind}.${name}`] ?? String(name ?? '');

const formats = new Map();
function format(Kind, options) {
  const key = Kind.name + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Kind(locale(), options));
  return formats.get(key);
}

// The browser's own variant of the language, as en-GB or de-CH: it decides how dates look.
const locale = () => navigator.languages.find((one) => one.split('-')[0] === language) ?? language;

export const number = (value, digits) =>
  value === null || value === undefined || Number.isNaN(value)
    ? '–'
    : format(Intl.NumberFormat, digits === undefined ? {} : { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);

export const score = (value) => number(value, 3);

export const percent = (share, digits = 2) =>
  share === null || share === undefined || Number.isNaN(share)
    ? '–'
    : format(Intl.NumberFormat, { style: 'percent', minimumFractionDigits: digits, maximumFractionDigits: digits }).format(share);

export const unit = (value, name, digits = 0) =>
  value === null || value === undefined
    ? '–'
    : format(Intl.NumberFormat, { style: 'unit', unit: name, minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);

const moment = (options) => (when) => (when === null || when === undefined ? '–' : format(Intl.DateTimeFormat, options).format(new Date(when)));
// 24 hours everywhere: nobody on a night shift should have to look for AM or PM.
export const clock = moment({ hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
export const minute = moment({ hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
export const day = moment({ dateStyle: 'medium' });
export const shortDay = moment({ month: 'short', day: 'numeric' });
const both = moment({ year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

// The time alone for today, else with its day.
export const when = (stamp) => {
  if (stamp === null || stamp === undefined) return '–';
  return new Date(stamp).toDateString() === new Date().toDateString() ? clock(stamp) : both(stamp);
};

// How long ago, in the largest unit that fits.
export function duration(seconds) {
  const [, name, size] = [[172800, 'day', 86400], [3600, 'hour', 3600], [60, 'minute', 60], [0, 'second', 1]].find(([least]) => seconds >= least);
  return format(Intl.NumberFormat, { style: 'unit', unit: name, unitDisplay: 'long', maximumFractionDigits: 0 })
    .format(Math.floor(seconds / size));
}
