// Asks the dashboard's server. What it refuses becomes an ApiError with a code, whose sentence the catalogue holds.

export class ApiError extends Error {
  constructor(status, { code, values = {}, detail = null }) {
    super(detail ?? code);
    Object.assign(this, { status, code, values, detail });
  }
}

let csrf = null;
const listeners = new Set();
export const onLoginNeeded = (listener) => { listeners.add(listener); return () => listeners.delete(listener); };

export async function session() {
  const answer = await get('/api/session');
  csrf = answer.csrf;
  return answer;
}

export const get = (path, query, signal) => ask(path + search(query), { signal });
export const post = (path, body = {}) => change('POST', path, body);
export const remove = (path) => change('DELETE', path);

// ?key=value&… of what is set; a list is joined with commas.
export function search(query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '' && value.length !== 0);
  const text = new URLSearchParams(given.map(([key, value]) => [key, Array.isArray(value) ? value.join(',') : String(value)])).toString();
  return text && `?${text}`;
}

async function change(method, path, body, again = true) {
  const headers = { 'Content-Type': 'application/json', 'X-CSRF-Token': csrf ?? '' };
  try {
    const answer = await ask(path, { method, headers, body: body && JSON.stringify(body) });
    if (answer?.csrf) csrf = answer.csrf;
    return answer;
  } catch (error) {
    if (error.code !== 'csrf' || !again) throw error;
    await session(); // another tab has logged in anew
    return change(method, path, body, false);
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { Accept: 'application/json', ...options.headers } });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, { code: 'no_connection' });
  }
  if (answer.ok) return answer.json();
  let said = null;
  try { said = (await answer.json()).error; } catch { /* no JSON: something between here and the server answered */ }
  const error = new ApiError(answer.status, said ?? { code: 'unknown', values: { status: String(answer.status) } });
  if (error.code === 'login_needed') listeners.forEach((listener) => listener());
  throw error;
}

export const linePath = (line, rest = '') => `/api/lines/${encodeURIComponent(line)}${rest}`;
