// The state of a line in one sentence, one word and one tone.
import { percent, t, unit, when, word } from '../language.js';

const TONES = {
  running: 'pass', degraded: 'fault', starting: 'note', stopping: 'unknown', stopped: 'unknown',
  failed: 'reject', silent: 'reject', never_heard: 'unknown',
};

export const lineTone = (state) => TONES[state?.code] ?? 'unknown';
export const lineWord = (state) => (state ? word('state', state.code) : t('state.waiting'));

const SHOWN = {
  share: percent, usual: percent, free_mb: (value) => unit(value, 'megabyte'),
  p99: (value) => unit(value, 'millisecond', 1), deadline: (value) => unit(value, 'millisecond'), reason: (value) => word('reason', value),
};

export function causeText({ code, cause = code, subject, values = {} }) {
  if (word('cause', cause) === cause) return t('cause.other', { code: cause });
  const shown = Object.entries(values).map(([key, value]) => [key, SHOWN[key]?.(value) ?? String(value)]);
  return t(`cause.${cause}`, { subject: subject ?? '', ...Object.fromEntries(shown) });
}

// `state` as in GET /api/lines/LINE.
export function lineSentence({ line, state }) {
  const { code, values = {}, since_at: since } = state;
  if (code === 'degraded') return t('sentence.degraded', { line, cause: causeText(values) });
  if (code === 'silent') return t('sentence.silent', { line, time: when(values.last_at) });
  return t(`sentence.${code}`, { line, time: when(since), detail: values.detail ?? '' });
}

// What the page itself cannot do, with the words of whatever refused it.
export const troubleText = (trouble) => (trouble.detail ? `${causeText(trouble)} (${trouble.detail})` : causeText(trouble));
