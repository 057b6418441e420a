// The open connection to one line: its state each second, verdicts as they come, pictures while they are looked at.

const LONGEST_WAIT_S = 15;
const SILENT_MS = 4000; // the server sends the state each second

export class Live {
  constructor(line, onLogin) {
    this.line = line;
    this.state = null;
    this.connected = false;
    this.heardAt = null; // the page's clock
    this.listeners = new Set();
    this.wantsPreviews = false;
    this.wait = 1;
    this.onLogin = onLogin;
    this.visible = () => this.tell();
    document.addEventListener('visibilitychange', this.visible);
    this.watch = setInterval(() => this.checkSilence(), 1000);
    this.open();
  }

  on(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  // Whether somebody looks at the pictures: only then the line makes any.
  previews(wanted) {
    this.wantsPreviews = wanted;
    this.tell();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.watch);
    document.removeEventListener('visibilitychange', this.visible);
    this.socket?.close();
  }

  open() {
    const address = new URL(`/api/lines/${encodeURIComponent(this.line)}/live`, location.href);
    address.protocol = address.protocol.replace('http', 'ws');
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.take(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (this.socket === socket) this.lost(code);
    };
  }

  take(message) {
    this.heardAt = Date.now();
    if (message.type === 'hello') {
      this.wait = 1;
      this.connected = true;
      this.tell();
    }
    if (message.type === 'hello' || message.type === 'state') this.state = { ...this.state, ...message.state };
    this.emit(message);
  }

  lost(code) {
    this.connected = false;
    this.socket = null;
    if (this.closed) return;
    this.emit({ type: 'lost' });
    if (code === 4401) this.onLogin(); // shows the login, unless the server has only been started anew
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.wait * 1000);
    this.wait = Math.min(LONGEST_WAIT_S, this.wait * 2);
  }

  checkSilence() {
    if (!this.connected || Date.now() - this.heardAt < SILENT_MS) return;
    const silent = this.socket;
    this.lost(0); // a cable that was pulled out closes nothing
    silent.close();
  }

  tell() {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify({ previews: this.wantsPreviews && !document.hidden }));
  }

  emit(message) {
    for (const listener of this.listeners) listener(message);
  }
}
