// Act on the rejects and faults of one line: node subscribe.mjs tcp://127.0.0.1:5560 line3
import { Subscriber } from "zeromq"

const SILENCE_MS = 3000 // health comes every second
const [address, line] = process.argv.slice(2)

const socket = new Subscriber({
  receiveHighWaterMark: 100_000, // when we fall further behind, messages are dropped: seq shows it
  heartbeatInterval: 1000, // find out that a cable was pulled
  heartbeatTimeout: 5000,
})
socket.connect(address)
socket.subscribe(`${line}/`) // passes too: seq counts every verdict

const silent = setInterval(() => console.log(`silent: stop ${line}`), SILENCE_MS)
const last = new Map() // boot -> seq of its last verdict

for await (const [topic, payload] of socket) {
  let message
  try {
    message = JSON.parse(payload.toString())
  } catch {
    continue
  }
  if (message?.schema !== 1) continue
  const { boot, seq } = message
  const isHealth = topic.toString() === `${line}/-/health`
  if (isHealth) silent.refresh()
  const due = isHealth ? seq : seq - 1 // what must have come before this message
  const known = last.get(boot) ?? (last.size ? 0 : due)
  last.set(boot, Math.max(known, seq))
  if (due > known) console.log(`lost ${known + 1} to ${due}: treat those parts as rejects`)
  if (!isHealth && seq > known && message.decision !== "pass")
    console.log(message.decision, message.camera, message.frame, message.part)
}
