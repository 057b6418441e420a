// The shell around the pages: address, login, the bar with the line's state, the list of pages, language and colours.
import { html, render, useCallback, useEffect, useErrorBoundary, useMemo, useRef, useState } from './html.js';
import { address } from './address.js';
import { onLoginNeeded, session as askSession } from './api.js';
import { Context } from './context.js';
import { LANGUAGES, clock, preferred, speak, t } from './language.js';
import { Live } from './live.js';
import { Account } from './parts/account.js';
import { Loading, Problem } from './parts/problem.js';
import { lineSentence, lineTone, lineWord } from './parts/sentence.js';
import { Icon, State } from './shapes.js';
import { Export } from './pages/export.js';
import { HealthPage } from './pages/health.js';
import { Lake } from './pages/lake.js';
import { Lines } from './pages/lines.js';
import { LinePage } from './pages/line.js';
import { Login } from './pages/login.js';
import { Products } from './pages/products.js';
import { Rejects } from './pages/rejects.js';
import { Review } from './pages/review.js';
import { Threshold } from './pages/threshold.js';
import { Trends } from './pages/trends.js';

const PAGES = {
  line: LinePage, rejects: Rejects, review: Review, threshold: Threshold,
  trends: Trends, health: HealthPage, products: Products, export: Export, lake: Lake,
};
const THEME = 'inspectd.theme';

// /LINE/PAGE/REST?query
function readAddress() {
  const [line, page, ...rest] = location.pathname.split('/').filter(Boolean).map(decodeURIComponent);
  const { lang, ...query } = Object.fromEntries(new URLSearchParams(location.search)); // lang is for language.js
  return { line, page: page in PAGES ? page : 'line', rest: rest.join('/'), query };
}

function App() {
  const [session, setSession] = useState(null);
  const [error, setError] = useState(null);
  const [where, setWhere] = useState(readAddress);
  const [spoken, setSpoken] = useState(null);
  const [broken, mend] = useErrorBoundary();

  const enter = useCallback(() => askSession().then((answer) => { setSession(answer); setError(null); }, setError), []);
  useEffect(() => { enter(); }, []);
  useEffect(() => { speak(preferred()).then(() => setSpoken(preferred()), setError); }, []);
  useEffect(() => onLoginNeeded(() => setSession((before) => before && { ...before, user: null })), []);
  useEffect(() => {
    const moved = () => setWhere(readAddress());
    addEventListener('popstate', moved);
    return () => removeEventListener('popstate', moved);
  }, []);
  const go = useCallback((to, { replace = false } = {}) => {
    history[replace ? 'replaceState' : 'pushState'](null, '', to);
    setWhere(readAddress());
    mend();
  }, []);
  const say = useCallback((wanted) => speak(wanted, true).then(() => setSpoken(wanted)), []);

  if (!spoken && !error) return null;
  if (error && !session) return html`<main class="login"><${Problem} error=${error} again=${enter} /></main>`;
  if (!session) return html`<main><${Loading} /></main>`;
  if (session.login && !session.user) {
    return html`<${Login} entered=${(answer) => setSession(answer)} settings=${html`<${Looks} say=${say} spoken=${spoken} />`} />`;
  }
  const line = session.lines.includes(where.line) ? where.line : session.lines.length === 1 ? session.lines[0] : null;
  return html`<${Shell} key=${spoken} ...${{ session, enter, where, line, go, say, spoken, broken, mend }} />`;
}

function Shell({ session, enter, where, line, go, say, spoken, broken, mend }) {
  const [open, setOpen] = useState(false);
  const [live, setLive] = useState(null);
  const [state, setState] = useState(null);
  const [lostAt, setLostAt] = useState(null);
  const main = useRef(null);
  const first = useRef(true);

  useEffect(() => {
    setState(null);
    setLostAt(null);
    if (!line) return setLive(null);
    const opened = new Live(line, enter);
    const off = opened.on((message) => {
      if (message.type === 'lost') setLostAt((before) => before ?? opened.heardAt ?? Date.now());
      else if (message.type === 'hello' || message.type === 'state') { setState(opened.state); setLostAt(null); }
    });
    setLive(opened);
    return () => { off(); opened.close(); };
  }, [line]);

  const title = line ? t(`${where.page}.title`) : t('lines.title');
  useEffect(() => {
    document.title = `${title} · ${line ?? 'inspectd'}`;
    setOpen(false);
    if (first.current) { first.current = false; return; }
    main.current?.querySelector('h1')?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [where.page, line]);

  // Links within the page change the address without loading anything.
  const follow = (event) => {
    const link = event.target.closest?.('a[href]');
    if (!link || link.origin !== location.origin || link.download || link.target || link.pathname.startsWith('/api/')) return;
    if (link.hash && link.pathname === location.pathname) return;
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(link.pathname + link.search);
  };
  const context = useMemo(
    () => ({ session, enter, line, live, go, page: where.page, rest: where.rest, query: where.query }),
    [session, line, live, where],
  );
  const Page = line ? PAGES[where.page] : Lines;
  const tone = lostAt ? 'unknown' : lineTone(state?.state);
  return html`<${Context.Provider} value=${context}><div class="shell" onClick=${follow}>
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>
      ${t('skip')}</a>
    <header class="bar">
      ${line && html`<button class="icon plain menu-button" aria-expanded=${open} aria-controls="pages"
        aria-label=${t('menu')} onClick=${() => setOpen(!open)}><${Icon} of=${open ? 'close' : 'menu'} /></button>`}
      ${session.lines.length > 1
        ? html`<label><span class="hidden">${t('lines.choose')}</span><select value=${line ?? ''}
          onChange=${(event) => go(event.target.value ? address(event.target.value, where.page) : '/')}>
            <option value="">${t('lines.title')}</option>${session.lines.map((one) => html`<option key=${one}
              value=${one}>${one}</option>`)}</select></label>`
        : html`<span class="name">${line ?? 'inspectd'}</span>`}
      ${line && html`<a class="state-link" href=${address(line, 'health')}
        aria-label=${`${t('health.title')}: ${lostAt ? t('lost.short') : lineWord(state?.state)}`}>
        <${State} tone=${tone} pill>${lostAt ? t('lost.short') : lineWord(state?.state)}<//></a>`}
      <div class="end">
        ${state?.product && html`<span class="wide muted">${state.product}</span>`}
        <details class="settings">
          <summary aria-label=${t('settings')}><${Icon} of="settings" /><span class="wide">
            ${session.login ? session.user : ''}</span></summary>
          <div><${Looks} say=${say} spoken=${spoken} />
            ${session.login && html`<${Account} session=${session} left=${enter} />`}</div>
        </details>
      </div>
    </header>
    ${line ? html`<nav id="pages" class=${`rail ${open ? 'open' : ''}`} aria-label=${t('pages')}><ul>
      ${Object.keys(PAGES).filter((page) => page !== 'lake' || session.lake).map((page) => html`<li key=${page}><a href=${address(line, page)}
        aria-current=${page === where.page ? 'page' : undefined}>
        <${Icon} of=${page} /><span>${t(`${page}.title`)}</span>
          ${page === 'health' && state?.causes > 0 && html`<span class="count">${state.causes}</span>`}</a></li>`)}
    </ul></nav>` : html`<span></span>`}
    <main id="main" ref=${main} tabindex="-1">
      ${lostAt && html`<${Lost} at=${lostAt} />`}
      <div class="hidden" role="status">${line && state && !lostAt ? lineSentence(state) : ''}</div>
      ${broken ? html`<h1 tabindex="-1">${title}</h1><${Problem} error=${broken} again=${mend} />`
        : html`<${Page} key=${`${line}/${where.page}`} state=${state} lostAt=${lostAt} />`}
    </main>
  </div><//>`;
}

const Lost = ({ at }) => html`<div class="sentence tone-unknown" role="alert"><${State} tone="unknown" size="40" />
  <div><p>${t('lost', { time: clock(at) })}</p><p class="muted">${t('lost.hint')}</p></div></div>`;

// Language and colours: at the login, too.
function Looks({ say, spoken }) {
  const [theme, setTheme] = useState(localStorage.getItem(THEME) ?? '');
  const choose = (wanted) => {
    setTheme(wanted);
    localStorage.setItem(THEME, wanted);
    show(wanted);
  };
  return html`<div class="stack tight">
    <label class="field"><span>${t('language')}</span><select value=${spoken}
      onChange=${(event) => say(event.target.value)}>
      ${Object.entries(LANGUAGES).map(([code, name]) => html`<option key=${code} value=${code} lang=${code}>
        ${name}</option>`)}
    </select></label>
    <fieldset><legend>${t('theme')}</legend><div class="segments">
      ${['', 'light', 'dark'].map((one) => html`<button key=${one} aria-pressed=${one === theme}
        onClick=${() => choose(one)}>${t(`theme.${one || 'system'}`)}</button>`)}
    </div></fieldset>
  </div>`;
}

function show(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

show(localStorage.getItem(THEME) ?? '');
render(html`<${App} />`, document.getElementById('app'));
