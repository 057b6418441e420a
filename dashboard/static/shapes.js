// States as shapes, so that nobody needs to see their colours; and the small pictures beside the pages' names.
import { html } from './html.js';
import { t } from './language.js';

const SHAPES = {
  pass: html`<circle cx="12" cy="12" r="11" fill="currentColor" /><path d="M6.5 12.5l3.7 3.7 7.3-8" fill="none"
    class="cut" />`,
  reject: html`<path d="M7.4 1h9.2L23 7.4v9.2L16.6 23H7.4L1 16.6V7.4z" fill="currentColor" />
    <path d="M8 8l8 8M16 8l-8 8" class="cut" />`,
  fault: html`<path d="M12 1.5L23.5 22.5H.5z" fill="currentColor" stroke-linejoin="round" />
    <path d="M12 9v6.2M12 18.4v1.4" class="cut" />`,
  unknown: html`<rect x="2" y="2" width="20" height="20" rx="3" fill="none" stroke="currentColor" stroke-width="3" stroke-dasharray="5 3.2" />
    <path d="M8 12h8" stroke="currentColor" stroke-width="3" />`,
  note: html`<rect x="1.5" y="1.5" width="21" height="21" rx="3" fill="currentColor" />
    <path d="M12 10.5v7M12 5.6v1.6" class="cut" />`,
};

export const Shape = ({ of, size = 20 }) =>
  html`<svg class="shape" viewBox="0 0 24 24" width=${size} height=${size} aria-hidden="true">
    ${SHAPES[of] ?? SHAPES.unknown}</svg>`;

// A verdict or another state: shape and word together.
export const State = ({ tone, children, pill = false, ...rest }) =>
  html`<span class=${`state tone-${tone} ${pill ? 'pill' : ''} ${rest.class ?? ''}`}>
    <${Shape} of=${tone} size=${rest.size} /><span>${children}</span></span>`;

export const Verdict = ({ decision, ...rest }) =>
  html`<${State} tone=${decision ?? 'unknown'} ...${rest}>${t(`decision.${decision ?? 'none'}`)}<//>`;

const LABELS = { defect: 'reject', false_reject: 'pass', unsure: 'unknown' };
export const Label = ({ label, ...rest }) =>
  label ? html`<${State} tone=${LABELS[label] ?? 'unknown'} ...${rest}>${t(`label.${label}`)}<//>` : null;

export const Notice = ({ tone = 'note', children, ...rest }) =>
  html`<div class=${`notice tone-${tone}`} ...${rest}><${Shape} of=${tone} /><div>${children}</div></div>`;

const ICONS = {
  line: 'M3 16h18M6 20a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM18 20a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM7 12V5h10v7z',
  rejects: 'M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z',
  review: 'M4 5h16v14H4zM8 12l3 3 5-6',
  threshold: 'M3 20h18M6 20v-6M10 20V8M14 20v-9M18 20v-3M16 3v17',
  trends: 'M3 20h18M4 16l5-5 4 3 7-9',
  health: 'M3 12h4l3-7 4 14 3-7h4',
  products: 'M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9',
  lake: 'M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3-3.6 3-8 3-8-1.3-8-3zM4 6v12c0 1.7 3.6 3 8 3s8-1.3 8-3V6M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3',
  export: 'M12 3v12M7 10l5 5 5-5M4 20h16',
  menu: 'M4 6h16M4 12h16M4 18h16',
  settings: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 9.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM9 19.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z',
  close: 'M5 5l14 14M19 5L5 19',
  previous: 'M15 5l-7 7 7 7',
  next: 'M9 5l7 7-7 7',
};

export const Icon = ({ of, size = 22 }) =>
  html`<svg viewBox="0 0 24 24" width=${size} height=${size} fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round" stroke-linecap="round" aria-hidden="true">
    <path d=${ICONS[of]} /></svg>`;
