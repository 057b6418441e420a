"use strict"

const SVG = "http://www.w3.org/2000/svg"
const picture = document.getElementById("picture")
const rows = document.getElementById("regions")
const said = document.getElementById("said")
let size = { width: 1, height: 1 }
let regions = []
let open = [] // corners of the region that is being drawn
let dragged = null // [corners, number of the corner]

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  parent.append(made)
  return made
}

const text = (corners) => corners.map(([x, y]) => `${x},${y}`).join(" ")

function corners(typed) {
  const found = typed.trim().split(/\s+/).map((corner) => corner.split(",").map(Number))
  const right = found.every((corner) => corner.length === 2 && corner.every(Number.isFinite))
  return right ? found : null
}

const radius = () => Math.max(size.width, size.height) / 120

function draw() {
  const looks = document.getElementById("looks")
  const outlines = document.getElementById("outlines")
  looks.replaceChildren()
  outlines.replaceChildren()
  element("rect", { width: size.width, height: size.height, fill: "white" }, looks)
  for (const region of regions) {
    const points = text(region.polygon)
    element("polygon", { points, fill: region.weight === 0 ? "white" : "black" }, looks)
    element("polygon", { points }, outlines)
    region.polygon.forEach((_, number) => handle(region.polygon, number, outlines))
  }
  if (open.length) {
    element("polyline", { points: text(open) }, outlines)
    open.forEach((_, number) => handle(open, number, outlines))
  }
}

function handle(polygon, number, parent) {
  const [cx, cy] = polygon[number]
  const circle = element("circle", { cx, cy, r: radius() }, parent)
  circle.addEventListener("pointerdown", (event) => {
    event.stopPropagation()
    if (polygon === open && number === 0 && open.length > 2) close()
    else dragged = [polygon, number]
  })
}

function at(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse())
  const inside = (value, most) => Math.min(most, Math.max(0, Math.round(value * 10) / 10))
  return [inside(point.x, size.width), inside(point.y, size.height)]
}

function close() {
  add({ name: `region ${regions.length + 1}`, polygon: open })
  open = []
  draw()
}

function add(region) {
  regions.push(region)
  const row = rows.insertRow()
  const field = (label, value, change) => {
    const input = document.createElement("input")
    input.setAttribute("aria-label", label)
    input.value = value
    input.addEventListener("input", () => {
      change(input.value)
      draw()
    })
    row.insertCell().append(input)
    return input
  }
  const optional = (key) => (typed) => {
    if (typed.trim() === "") delete region[key]
    else region[key] = Number(typed)
  }
  field("Name", region.name, (typed) => (region.name = typed))
  region.field = field("Corners", text(region.polygon), (typed) => {
    const found = corners(typed)
    region.field.setAttribute("aria-invalid", found === null)
    if (found !== null) region.polygon = found
  })
  field("Weight", region.weight ?? "", optional("weight"))
  field("Own threshold", region.threshold ?? "", optional("threshold"))
  const remove = document.createElement("button")
  remove.type = "button"
  remove.textContent = "Remove"
  remove.setAttribute("aria-label", `Remove ${region.name}`)
  remove.addEventListener("click", () => {
    regions = regions.filter((other) => other !== region)
    row.remove()
    draw()
  })
  row.insertCell().append(remove)
}

picture.addEventListener("pointerdown", (event) => {
  open.push(at(event))
  draw()
})
picture.addEventListener("pointermove", (event) => {
  if (dragged === null) return
  const [polygon, number] = dragged
  polygon[number] = at(event)
  const region = regions.find((one) => one.polygon === polygon)
  if (region) region.field.value = text(polygon)
  draw()
})
window.addEventListener("pointerup", () => (dragged = null))
window.addEventListener("keydown", (event) => {
  if (event.target !== document.body) return
  if (event.key === "Enter" && open.length > 2) close()
  if (event.key === "Escape") open = []
  if (event.key === "Backspace") open.pop()
  draw()
})
document.getElementById("add").addEventListener("click", () => {
  const { width, height } = size
  const [left, top] = [Math.round(width / 4), Math.round(height / 4)]
  add({
    name: `region ${regions.length + 1}`,
    polygon: [[left, top], [width - left, top], [width - left, height - top], [left, height - top]],
  })
  draw()
})
document.getElementById("save").addEventListener("click", async () => {
  const content = regions.map(({ field, ...region }) => region)
  try {
    const answer = await fetch("regions", { method: "POST", body: JSON.stringify(content) })
    said.textContent = (await answer.json()).said
  } catch {
    said.textContent = "The command has ended: start it again to change the mask"
  }
})

async function start() {
  const content = await (await fetch("regions")).json()
  size = content.picture
  picture.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`)
  for (const id of ["pixels", "dark"]) {
    document.getElementById(id).setAttribute("width", size.width)
    document.getElementById(id).setAttribute("height", size.height)
  }
  content.regions.forEach(add)
  draw()
}

start()
