// Preact and its templates under one name: every other file imports them from here.
import { h } from './vendor/preact.js';
import htm from './vendor/htm.js';

export { render, createContext, Fragment } from './vendor/preact.js';
export {
  useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState, useErrorBoundary, useId,
} from './vendor/hooks.js';

export const html = htm.bind(h);
