import { html, useEffect, useRef, useState } from '../html.js';
import { post } from '../api.js';
import { useWork } from '../context.js';
import { t } from '../language.js';
import { Problem } from '../parts/problem.js';

export function Login({ entered, settings }) {
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const [run, busy, error] = useWork();
  const first = useRef(null);
  useEffect(() => {
    document.title = `${t('login.title')} · inspectd`;
    first.current.focus();
  }, []);
  const enter = async (event) => {
    event.preventDefault();
    const session = await run(() => post('/api/login', { name, password }));
    if (session) entered(session);
  };
  return html`<main class="login"><form class="panel stack" onSubmit=${enter}>
    <h1>${t('login.title')}</h1>
    <label class="field"><span>${t('login.name')}</span><input ref=${first} name="username" autocomplete="username" autocapitalize="none" spellcheck=${false} required value=${name} onInput=${(event) => setName(event.target.value)} /></label>
    <label class="field"><span>${t('login.password')}</span><input type="password" name="password" autocomplete="current-password" required value=${password} onInput=${(event) => setPassword(event.target.value)} /></label>
    <${Problem} error=${error} />
    <button class="main" disabled=${busy}>${t('login.enter')}</button>
    ${settings}
  </form></main>`;
}
