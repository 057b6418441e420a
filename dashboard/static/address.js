// Where a page of a line lies: /LINE/PAGE/REST?query
import { search } from './api.js';

export const address = (line, page, rest = '', query = {}) =>
  `/${encodeURIComponent(line)}/${page}${rest && `/${encodeURIComponent(rest)}`}${search(query)}`;
