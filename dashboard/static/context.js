// What every page needs to know: who looks, at which line, and where in the page. The address holds the rest.
import { createContext, useCallback, useContext, useEffect, useState } from './html.js';
import { ApiError } from './api.js';

export const Context = createContext(null); // {session, line, live, query, go, page, rest}
export const usePage = () => useContext(Context);

const ROLES = ['look', 'judge', 'change'];
export const may = (session, role) => ROLES.indexOf(session.role) >= ROLES.indexOf(role);

// {value, error, loading, again}: what `ask(signal)` gives, asked anew whenever one of `inputs` changes.
export function useAnswer(ask, inputs) {
  const [answer, setAnswer] = useState({ value: null, error: null, loading: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const asked = new AbortController();
    setAnswer((before) => ({ ...before, loading: true }));
    ask(asked.signal).then(
      (value) => { if (!asked.signal.aborted) setAnswer({ value, error: null, loading: false }); },
      (error) => {
        if (asked.signal.aborted) return;
        if (!(error instanceof ApiError)) console.error(error);
        setAnswer((before) => ({ value: before.value, error, loading: false }));
      },
    );
    return () => asked.abort();
  }, [...inputs, round]);
  const again = useCallback(() => setRound((n) => n + 1), []);
  return { ...answer, again };
}

// Ask again when somebody changed one of these things, here or at another screen.
export function useChanged(what, again) {
  const { live } = usePage();
  useEffect(() => live?.on((message) => {
    if (message.type === 'changed' && what.includes(message.what)) again();
  }), [live, again]);
}

// [run, busy, error]: run(work) does one thing at a time and keeps what went wrong.
export function useWork() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const run = useCallback(async (work) => {
    setBusy(true);
    setError(null);
    try {
      return await work();
    } catch (failure) {
      if (!(failure instanceof ApiError)) console.error(failure);
      setError(failure);
      return null;
    } finally {
      setBusy(false);
    }
  }, []);
  return [run, busy, error];
}
