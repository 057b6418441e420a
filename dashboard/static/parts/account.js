// Whoever is logged in: another password, the other users, and out again.
import { html, useState } from '../html.js';
import { get, post, remove } from '../api.js';
import { may, useAnswer, useWork } from '../context.js';
import { t, when, word } from '../language.js';
import { Dialog } from './dialog.js';
import { Problem } from './problem.js';
import { Notice } from '../shapes.js';

const ROLES = ['look', 'judge', 'change'];

export function Account({ session, left }) {
  const [open, setOpen] = useState(null);
  const [run, busy, error] = useWork();
  const close = () => setOpen(null);
  return html`<div class="stack tight"><p class="small muted">${t('account.as', { user: session.user, role: t(`role.${session.role}`) })}</p>
    <button onClick=${() => setOpen('password')}>${t('account.password')}</button>
    ${may(session, 'change') && html`<button onClick=${() => setOpen('users')}>${t('account.users')}</button>`}
    <button onClick=${() => setOpen('changes')}>${t('account.changes')}</button>
    <button disabled=${busy} onClick=${async () => { await run(() => post('/api/logout')); left(); }}>${t('account.leave')}</button>
    <${Problem} error=${error} />
    ${open === 'password' && html`<${Dialog} title=${t('account.password')} close=${close}><${Password} done=${close} /><//>`}
    ${open === 'users' && html`<${Dialog} title=${t('account.users')} close=${close}><${Users} /><//>`}
    ${open === 'changes' && html`<${Dialog} wide title=${t('account.changes')} close=${close}><${Changes} /><//>`}</div>`;
}

const field = (name, label, value, set, type = 'text', extra = {}) => html`<label class="field"><span>${label}</span><input name=${name} type=${type} required value=${value} onInput=${(event) => set(event.target.value)} ...${extra} /></label>`;

function Password({ done }) {
  const [old, setOld] = useState('');
  const [fresh, setFresh] = useState('');
  const [run, busy, error] = useWork();
  const send = async (event) => { event.preventDefault(); if (await run(() => post('/api/password', { old, new: fresh }))) done(); };
  return html`<form class="stack" onSubmit=${send}>${field('old', t('account.old'), old, setOld, 'password', { autocomplete: 'current-password' })}${field('new', t('account.new'), fresh, setFresh, 'password', { autocomplete: 'new-password', minlength: 8 })}
    <${Problem} error=${error} /><button class="main" disabled=${busy}>${t('account.save')}</button></form>`;
}

function Users() {
  const { value, error, again } = useAnswer((signal) => get('/api/users', {}, signal), []);
  const [name, setName] = useState('');
  const [role, setRole] = useState('look');
  const [password, setPassword] = useState('');
  const [run, busy, failure] = useWork();
  const send = async (event) => {
    event.preventDefault();
    if (await run(() => post('/api/users', { name, role, ...(password && { password }) }))) { setName(''); setPassword(''); again(); }
  };
  const roles = (chosen, set, label) => html`<select aria-label=${label} value=${chosen} onChange=${(event) => set(event.target.value)}>${ROLES.map((one) => html`<option key=${one} value=${one}>${t(`role.${one}`)}</option>`)}</select>`;
  return html`<${Problem} error=${error ?? failure} />
    <ul class="stack tight">${value?.users.map((one) => html`<li key=${one.name} class="row between"><b>${one.name}</b><span class="row tight">
      ${roles(one.role, (wanted) => run(() => post('/api/users', { name: one.name, role: wanted })).then(again), t('account.role.of', { user: one.name }))}
      <button disabled=${busy} onClick=${() => run(() => remove(`/api/users/${encodeURIComponent(one.name)}`)).then(again)}>${t('account.remove')}<span class="hidden"> ${one.name}</span></button></span></li>`)}</ul>
    <form class="stack" onSubmit=${send}><h3>${t('account.add')}</h3>${field('name', t('login.name'), name, setName, 'text', { pattern: '[A-Za-z0-9_.\\-]{1,64}', autocomplete: 'off' })}
      <label class="field"><span>${t('account.role')}</span>${roles(role, setRole, t('account.role'))}</label>${field('password', t('login.password'), password, setPassword, 'password', { minlength: 8, autocomplete: 'new-password' })}
      <button class="main" disabled=${busy}>${t('account.save')}</button></form>`;
}

function Changes() {
  const { value, error } = useAnswer((signal) => get('/api/changes', { limit: 100 }, signal), []);
  return html`<${Problem} error=${error} />
    ${value && html`<${Notice} tone=${value.intact ? 'pass' : 'reject'}><p>${value.intact ? t('changes.intact') : t('changes.altered', { detail: value.detail ?? '' })}</p><//>
    <div class="scroll" tabindex="0" role="region" aria-label=${t('account.changes')}><table><thead><tr><th scope="col">${t('changes.when')}</th><th scope="col">${t('changes.who')}</th><th scope="col">${t('changes.what')}</th><th scope="col">${t('changes.content')}</th></tr></thead>
      <tbody>${value.changes.map((one) => html`<tr key=${one.id}><td class="nowrap">${when(one.at)}</td><td>${one.user}</td><td>${word('change', one.what)}</td><td class="small"><code>${JSON.stringify(one.content)}</code></td></tr>`)}</tbody></table></div>`}`;
}
